"""Features or tokens of many files, computed on a Ray cluster: what one machine would write, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from filmstrip.commands.work.encode import EncodedVideo, encode_videos, load_model, reader_of, weights_of
from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.dataset import Unreadable
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import Source
from filmstrip.distributed.ray_pipeline import in_order
from filmstrip.errors import UserError
from filmstrip.protocols import Batch

_READ = ("video", "index", "span", "action")
"""Keys of a batch that are encoded, or written."""


class Encoding(NamedTuple):
    """What an actor needs to know."""

    encoder: str
    """Name or folder of the encoder, the same on every machine."""
    level: str
    error: float | None
    clip: Clip
    num_clips: int
    weights: str
    """Fingerprint of the weights."""


class Group(NamedTuple):
    """The clips of neighbouring videos, which one machine would read into the same batches."""

    batches: list[Batch]
    unreadable: list[Unreadable]


class Encoded(NamedTuple):
    """The encoded videos of a group, numbered within it."""

    videos: list[EncodedVideo]
    unreadable: list[Unreadable]


def encoded_on_ray(
    source: Source, data: Data, encoding: Encoding, *, batch_size: int, actors: int, unreadable: list[Unreadable]
) -> Iterator[EncodedVideo]:
    """The encoded videos of a source, in order; files that cannot be read are added to ``unreadable``.

    Batches are those that :class:`~filmstrip.data.reading.loader.EvalLoader` makes on one machine, since what a
    network computes of a clip may differ in its last bit with the size of its batch.

    Raises:
        UserError: see :func:`~filmstrip.distributed.ray_pipeline.in_order`; or an actor finds other weights.
    """
    size = max(1, batch_size // encoding.num_clips)
    groups = [source.samples[i : i + size] for i in range(0, len(source.samples), size)]
    rest = replace(source, samples=())

    def read(number: int) -> Group:
        loader = EvalLoader(
            replace(rest, samples=groups[number]), data, "all", num_clips=encoding.num_clips, batch_size=batch_size
        )
        batches = [{key: batch[key] for key in _READ if key in batch} for batch in loader]
        return Group(batches, loader.unreadable)

    results = in_order(len(groups), read, _Builder(encoding), actors=actors)
    for number, found in enumerate(results):
        unreadable += found.unreadable
        for video in found.videos:
            yield video._replace(video=number * size + video.video)


class _Builder:
    """Makes the function of an actor."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def __call__(self) -> Callable[[Group], Encoded]:
        known = self.encoding
        model = load_model(known.encoder, known.level)
        if weights_of(model) != known.weights:
            raise UserError(
                f"{known.encoder} has other weights on a machine of the Ray cluster than here: all must see the same"
            )
        model.clip = known.clip
        reader = reader_of(model, known.level, known.error)

        def encode(group: Group) -> Encoded:
            return Encoded([*encode_videos(model, reader, group.batches, known.num_clips)], group.unreadable)

        return encode
