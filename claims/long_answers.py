"""Of a long video merging, dropping and memory each tell more than eight frames do."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from claims.asked import Told, asks, learn, right
from claims.ledger import Claim, Figure, above, below
from claims.long_videos import (
    AREA,
    CLASS_LAYERS,
    FRAMES,
    HEADS,
    NAMES,
    RATE,
    SIZE,
    STEPS,
    TEST,
    TRAIN,
    WIDTH,
    Drawn,
    Reduce,
    Start,
    config,
    draw,
    everything,
    reduced,
    render,
    segments,
    start,
)
from claims.training import learn as learn_labels
from claims.training import percent, picked
from filmstrip.data.kinds.conversations import prompts
from filmstrip.evals.answers import answers
from filmstrip.models.connectors import ConnectorConfig
from filmstrip.objectives.language import VideoLanguage
from filmstrip.protocols import Features, as_float
from filmstrip.systems.language.internvideo2_5 import CompressionConfig, Dropping, InternVideo25, InternVideo25Config
from filmstrip.systems.language.longvlm import SegmentsConfig
from filmstrip.systems.recognition.memvit import ClipByClip, MeMViTConfig

EVERY, SIDE_OF_SQUARE, AT_ONCE = 8, 2, 16
"""Frames from one of eight to the next, cells that a square is wide, and videos that are timed together."""
STEPS_OF_CLIPS, STEPS_OF_VIDEOS, RATE_OF_CLIPS = 300, 150, 3e-3
MEMORY = MeMViTConfig(
    width=32,
    depth=2,
    stages=(1,),
    kv_stride=(1, 2, 2),
    num_frames=8,
    size=SIZE,
    summary="mean",
    drop_path=0.0,
    dropout=0.0,
    label_smoothing=0.0,
    linear_init="glorot",
    memory=4,
    memory_every=1,
    num_classes=len(NAMES),
)
KIND = ("odd",)
WAYS = {
    "frames": "8 frames, all of their tokens",
    "merging": "LongVLM: merged in 8 segments, and class tokens",
    "dropping": "InternVideo2.5: merged in fours, three quarters dropped in the language model",
    "memory": "MeMViT: clip by clip, four remembered",
}
MEASURES = {
    "right": ("right answers, %", 1),
    "tokens": ("tokens that are read (MeMViT: keys of a clip)", 0),
    "ms": ("time of a video, ms", 1),
    "MB": ("most memory of tensors for 16 videos at once, MB", 1),
}

CLAIM = Claim(
    systems=("language.longvlm", "language.internvideo2_5", "recognition.memvit"),
    finding=__doc__.strip(),
    paper="No paper compares the three. LongVLM reads 305 tokens of 100 frames (Weng et al. 2024), InternVideo2.5 16 "
    "of each frame and an eighth of them at last (Wang et al. 2025), MeMViT clips with what it kept of earlier ones, "
    "for 2.3% more work (Wu et al. 2022).",
    here="The videos of longvlm_merging, with squares two cells wide: which of six colours? The language models "
    "begin as there, and learn with their linear layer from 480 videos, 250 steps of 32; MeMViT names the colour as "
    "a class, after 300 steps of 32 clips of 8 frames that show it and 150 of 8 videos. 240 other videos. Chance is "
    "17; who sees every eighth frame sees a quarter of the squares. Times are of one core, from pixels on.",
    baseline="Eight frames, evenly spaced.",
    figures={
        f"{way}, {name}": Figure(says=f"{said}: {what}", digits=digits)
        for way, said in WAYS.items()
        for name, (what, digits) in MEASURES.items()
    },
    expected=(
        above("merging, right", "frames, right", "merging finds the square more often than eight frames do"),
        above("dropping, right", "frames, right", "so does merging less and dropping in the language model"),
        above("memory, right", "frames, right", "so does memory"),
        below("merging, tokens", "frames, tokens", "merging reads fewer tokens than eight frames have"),
    ),
    analysis="Merging and dropping find the square in 24 and 53 points more of the videos than eight frames, which "
    "mostly miss it. MeMViT is a classifier trained from nothing on 480 videos: in one seed it learns to name the "
    "square (55%), in two it stays near the chance of six colours (21 and 24%); its memory is not what fails, as "
    "memvit_memory shows.",
    minutes=16,
)


@dataclass(frozen=True, kw_only=True)
class DroppingConfig(InternVideo25Config):
    """InternVideo2.5 that is shown compressed tokens, with the linear layer of the others."""

    connector: ConnectorConfig = field(default_factory=lambda: SegmentsConfig(class_layers=0))

    def build(self) -> DroppingModel:
        """Build the model with fresh weights."""
        return DroppingModel(self)


class DroppingModel(InternVideo25):
    """Sees what stands before the linear layer, ``B N C``."""

    def see(self, video: Tensor) -> Tensor:
        """Tokens of the language model."""
        return self.connector.layers(video)


class Way(NamedTuple):
    """How a language model reads a long video."""

    reduce: Reduce
    every: int = 1
    """Frames from one that the encoder sees to the next."""
    drops: bool = False

    def seen(self, videos: Tensor) -> Tensor:
        """The frames that the encoder sees."""
        return videos[:, self.every // 2 :: self.every]


def compressed() -> Reduce:
    """Two tokens for each frame, four frames at a time."""
    connector = CompressionConfig(steps=4, per_step=2, num_heads=HEADS).build(WIDTH, WIDTH)
    connector.layers = nn.Identity()
    return lambda seen: connector(seen.tokens, seen.grid)


def every_eighth(seen: Features) -> Tensor:
    """All tokens of eight frames of a whole video."""
    frames = seen.tokens.unflatten(1, (-1, AREA))
    return frames[:, EVERY // 2 :: EVERY].flatten(1, 2)


READS = {
    "frames": Way(every_eighth, EVERY),
    "merging": Way(segments(class_layers=CLASS_LAYERS)),
    "dropping": Way(compressed(), drops=True),
}


def measure(seed: int, folder: Path) -> dict[str, float]:
    begun = start(KIND, seed, width=SIDE_OF_SQUARE)
    train, test = (draw(n, FRAMES, KIND, seed + i, width=SIDE_OF_SQUARE) for i, n in ((2, TRAIN), (3, TEST)))
    ways = {name: way.reduce for name, way in READS.items()}
    shown, asked = (reduced(begun.encoder, drawn, ways, seed + i) for i, drawn in ((2, train), (3, test)))
    videos = render(test.cells, np.random.default_rng((seed, 3)))
    found = {}
    for name, way in READS.items():
        model = learnt(begun, shown[name], way, seed)
        found[f"{name}, right"] = right(model, begun.serialiser, asked[name])[""]
        found[f"{name}, tokens"] = asked[name].clips.shape[1]
        answer = reader(begun, model, way, asked[name])
        found |= costs(name, answer, videos)
    network = remembering(train, seed)
    with torch.no_grad():
        said = torch.cat([network.logits(as_float(part))[:, -1].argmax(dim=1) for part in videos.split(40)])
        found |= costs("memory", lambda some: network.logits(as_float(some)), videos)
    found["memory, right"] = percent(said, labels(test))
    found["memory, tokens"] = keys_of_clip()
    return found


def learnt(begun: Start, told: Told, way: Way, seed: int) -> VideoLanguage:
    """A language model of one way, which begins where all do."""
    plain = config(begun.serialiser, ("connector", "decoder"))
    if way.drops:
        dropping = Dropping(after=(1,), keep=(0.25,), by="attention")
        plain = DroppingConfig(
            encoder=plain.encoder,
            decoder=plain.decoder,
            trains=plain.trains,
            placeholders=plain.placeholders,
            dropping=dropping,
        )
    model = plain.build()
    model.load_state_dict(begun.model.state_dict())
    return learn(model, begun.serialiser, [told], STEPS, seed, rate=RATE)


def reader(begun: Start, model: VideoLanguage, way: Way, told: Told) -> Callable[[Tensor], object]:
    """Answers the question about videos, from their pixels on."""
    ask = [asks(told.asked[0])]

    def read(videos: Tensor) -> object:
        visual = model.see(way_of_frames(way, begun.encoder(way.seen(videos), layers=True)))
        return answers(model, visual, prompts(begun.serialiser, [ask] * len(videos)), begun.serialiser, count=2)

    return read


def way_of_frames(way: Way, seen: Features) -> Tensor:
    """What is left of features of the frames that a way sees."""
    return everything(seen) if way.every > 1 else way.reduce(seen)


@torch.no_grad()
def costs(name: str, read: Callable[[Tensor], object], videos: Tensor) -> dict[str, float]:
    """Time of a video, the median of five, and the most memory of tensors, of some videos at once."""
    some, times = videos[:AT_ONCE], []
    read(some)
    for _ in range(5):
        begin = time.perf_counter()
        read(some)
        times.append(time.perf_counter() - begin)
    with Live() as live:
        read(some)
    return {f"{name}, ms": 1000 * statistics.median(times) / len(some), f"{name}, MB": live.most / 2**20}


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are made within and live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.users: dict[int, int] = {}
        """Number of tensors that live in each storage, by its address."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation, and count what it returns."""
        made = func(*args, **(kwargs or {}))
        given = {
            each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)
        }
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and (
                (at := each.untyped_storage().data_ptr()) in self.users or at not in given
            ):
                self._add(each, at, each.untyped_storage().nbytes())
        return made

    def _add(self, tensor: Tensor, at: int, size: int) -> None:
        self.users[at] = self.users.get(at, 0) + 1
        self.now += size if self.users[at] == 1 else 0
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._free, at, size)

    def _free(self, at: int, size: int) -> None:
        self.users[at] -= 1
        if not self.users[at]:
            del self.users[at]
            self.now -= size


def labels(drawn: Drawn) -> Tensor:
    """The colour that is asked for, as a class."""
    return torch.tensor([NAMES.index(one.answer) for one in drawn.asked])


def remembering(train: Drawn, seed: int) -> ClipByClip:
    """MeMViT, after single clips that show the square, then long videos."""
    torch.manual_seed(seed)
    network, rng = MEMORY.build(), np.random.default_rng((seed, 5))
    clips = draw(2 * TRAIN, MEMORY.num_frames, KIND, seed + 5, width=SIDE_OF_SQUARE)
    for drawn, size, steps in ((clips, 32, STEPS_OF_CLIPS), (train, 8, STEPS_OF_VIDEOS)):
        batches = picked(render(drawn.cells, rng), labels(drawn), size, seed)
        learn_labels(network, batches, steps=steps, lr=RATE_OF_CLIPS, weight_decay=0.01, warmup=0.2)
    return network


def keys_of_clip() -> int:
    """Keys that a clip reads in a layer: its own, pooled, and those of the clips that are remembered."""
    t, h, w = MEMORY.num_frames // 2, SIZE // 4, SIZE // 4
    own = 1 + t * -(-h // MEMORY.kv_stride[1]) * -(-w // MEMORY.kv_stride[2])
    older = 1 + -(-t // 4) * -(-h // 4) * -(-w // 4)
    return own + MEMORY.memory * older
