"""Features or tokens of many files, written so that encoding can stop and resume at any time."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch
from rich.console import Console
from torch import Tensor

from filmstrip.commands.encode import Engine, Level
from filmstrip.commands.stopping import NOTHING_KEPT, keeping, stopped_once
from filmstrip.commands.work.token_use import write_token_use
from filmstrip.data.actions import beside, check_clip
from filmstrip.data.config import Clip, Data
from filmstrip.data.features import POOLED, FeatureWriter, names_in, sort_index
from filmstrip.data.kinds.encoded import IDS, TOKENIZER_LEVELS
from filmstrip.data.layouts.folder import is_film
from filmstrip.data.layouts.manifest import MANIFEST_SUFFIXES, manifest_of
from filmstrip.data.reading.dataset import Unreadable
from filmstrip.data.reading.loader import EvalLoader, write_unreadable
from filmstrip.data.sample import Notes, collect
from filmstrip.data.sources import Sample, Source, open_videos
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.progress import bars, counted, shown
from filmstrip.protocols import Batch, Grid
from filmstrip.runs.encoders import VideoEncoder, load
from filmstrip.runs.preflight import check_clips
from filmstrip.runs.tokenizers import VideoTokenizer, load_tokenizer
from filmstrip.video.remote import address_of
from filmstrip.weights.fingerprint import fingerprint

SECONDS_AT_RISK = 60.0
"""Maximum time between computing features and having them on disk, in seconds; bounds the loss if the process
dies."""


class Written(NamedTuple):
    """The features or tokens of clips, as they are written."""

    tokens: Tensor
    """Features, ids or latents, ``B N D``."""
    grid: Grid
    lengths: Tensor | None = None
    """Number of used tokens of each block, ``B b``; None if all tokens are used."""


class EncodedVideo(NamedTuple):
    """The encoded clips of one video."""

    video: int
    """Index of the video in the split."""
    clips: Written
    """Encoded clips, ``C N D``: clips, tokens, width."""
    spans: list[tuple[float, float]]
    """Start and end of each clip, in seconds."""
    action: Tensor | None
    """Actions, ``C T`` or ``C T A``."""


def encode_files(
    encoder: str | Path | VideoEncoder | VideoTokenizer,
    files: Sequence[Path],
    out: Path,
    *,
    level: Level = "clip",
    error: float | None = None,
    num_clips: int = 1,
    num_frames: int | None = None,
    sampling: Literal["dense", "uniform"] | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    processes: int = 1,
    fps: float | None = None,
    engine: Engine = "local",
) -> int:
    """Encode files, or collections of them, into ``out``: safetensors shards and ``index.parquet``.

    Resumes from what ``out`` already holds. ``num_frames`` and ``sampling`` replace those of the encoder's own clips.
    With an ``error``, a tokenizer of variable length uses the minimum number of tokens that meets it, and a single
    process writes ``token_use.html``, which shows their distribution. Several ``processes`` share the files, each
    with its own ``num_workers`` decoding workers, on GPUs in turn; the index is in the files' order regardless. With
    the engine ``ray`` they are actors of a Ray cluster, which compute bit by bit what a single process does; this one
    writes it. Bad files are listed in ``out/unreadable.csv``; ``fps`` is as in :func:`find_source`. Returns 1 if any
    were bad, else 0.

    Raises:
        UserError: an encoder or file does not exist, the encoder does not have the level or does not support the
            clips, ``out`` was written with another encoder or other settings, or one of several processes died.
        OSError: ``out`` cannot be written; what was written before is kept.
    """
    if not files:
        raise UserError("encode needs videos: filmstrip encode ENCODER FILE|FOLDER|MANIFEST ... --out FOLDER")
    if engine == "ray":
        from filmstrip.distributed.ray_pipeline import check_ray

        check_ray()
    if num_clips > 1:  # checked before a collection is opened, which takes time
        check_clips(find_source(files, fps).samples, num_clips)
    work = partial(
        encode_part,
        encoder,
        files,
        Path(out),
        level=level,
        error=error,
        num_clips=num_clips,
        clip={key: value for key, value in (("num_frames", num_frames), ("sampling", sampling)) if value},
        batch_size=batch_size,
        num_workers=num_workers,
        parts=processes if engine == "local" else 1,
        fps=fps,
        actors=processes if engine == "ray" else 0,
    )
    if (processes > 1 or engine == "ray") and not isinstance(encoder, (str, Path)):
        raise ValueError("with several processes, each loads the encoder itself: pass its folder or name")

    def kept() -> str:
        count = len(names_in(Path(out)))
        return f"{out} keeps {count} encoded videos: the same command resumes" if count else NOTHING_KEPT

    with keeping(kept):
        if processes == 1 or engine == "ray":
            return work(part=0)
        bad = _in_processes(work, processes, out)
        sort_index(Path(out), [sample.name for sample in find_source(files, fps).samples])
    return bad


def _in_processes(work: Callable[..., int], processes: int, out: Path) -> int:
    """The maximum of what ``work(part=...)`` returns; if one fails or is stopped, the others write their results."""
    before = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        parts = [pool.submit(_one_part, work, part) for part in range(processes)]
        try:
            return max(part.result() for part in parts)
        except BrokenProcessPool:
            raise UserError(f"a process died: run the same command again; {out} keeps what was encoded") from None
        except BaseException:
            for child in multiprocessing.active_children():
                if child not in before:
                    child.terminate()
            raise


def _one_part(work: Callable[..., int], part: int) -> int:
    with stopped_once():
        return work(part=part)


def encode_part(
    encoder: str | Path | VideoEncoder | VideoTokenizer,
    files: Sequence[Path],
    out: Path,
    *,
    part: int,
    parts: int,
    level: Level = "clip",
    error: float | None = None,
    num_clips: int = 1,
    clip: Mapping[str, Any] = MappingProxyType({}),
    batch_size: int = 8,
    num_workers: int = 2,
    fps: float | None = None,
    actors: int = 0,
) -> int:
    """Encode the share of one of several processes, on any machine: every ``parts``-th file, starting at ``part``.

    With ``actors`` as many of a Ray cluster compute, and this process writes.
    """
    console = Console(stderr=True, quiet=part > 0)
    source = find_source(files, fps)
    model: VideoEncoder | VideoTokenizer
    if isinstance(encoder, (str, Path)):
        device = None
        if parts > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // parts))
            device = f"cuda:{part % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        model = load_model(encoder, level, "cpu" if actors else device)
    else:
        model = encoder
    model.clip = replace(model.clip, **clip)
    reader = reader_of(model, level, error)
    source = _with_fitting_actions(source, model.clip, console)
    data = Data(clip=model.clip, num_workers=num_workers, backend=model.backend)
    about = _about(model, level, error, num_clips, source)
    if clip:
        about["clip_changes"] = json.dumps(dict(clip))
    if isinstance(encoder, (str, Path)):
        about["encoder"] = str(Path(encoder).absolute() if Path(encoder).exists() else encoder)
    with FeatureWriter(out, about=about) as writer:
        left = [sample for sample in source.samples if sample.name not in writer]
        if len(left) < len(source.samples):
            console.print(f"{len(source.samples) - len(left)} of {len(source.samples)} files are encoded already")
        # By their index among all files: the remaining files may differ when each process starts.
        mine = {sample.name for sample in source.samples[part::parts]}
        left = [sample for sample in left if sample.name in mine]
        if not left:
            return 0
        whole = replace(source, samples=tuple(replace(sample, split="all") for sample in left))
        unreadable: list[Unreadable] = []
        videos = _encoded_here(model, reader, whole, data, num_clips, batch_size, unreadable)
        if actors:
            from filmstrip.commands.work.encode_ray import Encoding, encoded_on_ray

            known = Encoding(str(encoder), level, error, model.clip, num_clips, about["weights"])
            videos = encoded_on_ray(whole, data, known, batch_size=batch_size, actors=actors, unreadable=unreadable)
        with shown(bars(console)), counted("encoding", len(left)) as done:
            flushed = time.monotonic()
            for index, clips, spans, action in videos:
                sample = left[index]
                writer.add(
                    sample.name,
                    clips.tokens,
                    grid=clips.grid,
                    spans=spans,
                    label=sample.label,
                    split=sample.split,
                    action=action,
                    lengths=clips.lengths,
                )
                done(index + 1)
                if time.monotonic() - flushed > SECONDS_AT_RISK:
                    writer.flush()
                    flushed = time.monotonic()
            done(len(left))
    # One of several processes cannot know when the others have finished writing.
    if parts == 1 and isinstance(model, VideoTokenizer):
        page = write_token_use(out, model, source, data, num_clips)
        if page is not None:
            console.print(f"token use: {page}")
    bad = [entry for entry in unreadable if not entry.used]
    if unreadable:
        with writer.alone():
            write_unreadable(out / "unreadable.csv", unreadable)
        console.print(f"{len(bad)} files could not be read: see {out / 'unreadable.csv'}")
    return int(bool(bad))


def _encoded_here(
    model: VideoEncoder | VideoTokenizer,
    reader: Callable[[Tensor], Written],
    source: Source,
    data: Data,
    num_clips: int,
    batch_size: int,
    unreadable: list[Unreadable],
) -> Iterator[EncodedVideo]:
    """The encoded videos of a source, in order, in this process; bad files are added to ``unreadable``."""
    loader = EvalLoader(source, data, "all", num_clips=num_clips, batch_size=batch_size)
    yield from encode_videos(model, reader, loader, num_clips)
    unreadable += loader.unreadable


def load_model(
    encoder: str | Path, level: str, device: torch.device | str | None = None
) -> VideoEncoder | VideoTokenizer:
    """The encoder or, where its tokens are asked for, the tokenizer of a run folder or of a name."""
    return load_tokenizer(encoder, device) if level in TOKENIZER_LEVELS else load(encoder, device)


def weights_of(model: VideoEncoder | VideoTokenizer) -> str:
    """A short name for a model's weights."""
    return model.fingerprint if isinstance(model, VideoTokenizer) else fingerprint(model)


def find_source(files: Sequence[Path], fps: float | None = None) -> Source:
    """The videos at the given paths: a video file (or a folder of numbered frames) is one sample, any other path a
    collection with labels and splits.

    With ``fps`` folders of images are films of so many frames per second. The classes of several paths are merged by
    name. Actions are kept if all videos have them.

    Raises:
        UserError: a path does not exist or holds no videos, or two videos have the same name.
    """
    sources = [_source_at(path, fps) for path in files]
    if len(sources) == 1:
        return sources[0]
    classes = tuple(dict.fromkeys(name for source in sources for name in source.classes))
    samples: list[Sample] = []
    for path, source in zip(files, sources):
        for sample in source.samples:
            name = sample.name if sample.name in (str(path), address_of(path)) else f"{path}/{sample.name}"
            label = None if sample.label is None else classes.index(source.classes[sample.label])
            samples.append(replace(sample, name=name, label=label))
    names = [sample.name for sample in samples]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{twice} was given twice")
    if any(sample.actions is None for sample in samples):
        samples = [replace(sample, actions=None) for sample in samples]
    return collect(Path("."), classes, samples, Notes())


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in (*MANIFEST_SUFFIXES, ".tar")


def _source_at(path: Path, fps: float | None) -> Source:
    if (address := address_of(path)) is not None and manifest_of(path) is None:
        return collect(Path("."), (), [Sample(path=address, name=address)], Notes())
    if is_film(path, fps):
        return collect(path, (), [Sample(path=str(path), name=str(path), fps=fps)], Notes())
    if _is_video(path):
        names = {file.name for file in path.absolute().parent.iterdir()}
        sample = Sample(path=str(path), name=str(path), actions=beside(path, names))
        return collect(path.parent, (), [sample], Notes())
    return open_videos(path, fps)


def reader_of(
    model: VideoEncoder | VideoTokenizer, level: str, error: float | None = None
) -> Callable[[Tensor], Written]:
    """A function from ``B T C H W`` video to the features or tokens that are written, ``B N D``.

    Ids are int16 if the codebook is small enough, otherwise int32; ``D`` is the number of codebooks.

    Raises:
        UserError: the model does not have the level, or does not support ``error``.
    """
    if level not in get_args(Level) or isinstance(model, VideoTokenizer) != (level in TOKENIZER_LEVELS):
        supported = "ids or latents" if isinstance(model, VideoTokenizer) else "clip, frame or patch"
        raise UserError(f"this model has no level {level!r}: use --level {supported}")
    if not isinstance(model, VideoTokenizer):
        if error is not None:
            raise UserError("--error is supported only by tokenizers of variable length: omit it")
        return partial(_read_features, model, level)
    if (model.codebook_size is not None) != (level == IDS):
        has, kind = ("no", "latents") if model.codebook_size is None else ("a", "ids")
        raise UserError(f"this tokenizer has {has} codebook, so its tokens are {kind}: use --level {kind}")

    def code(video: Tensor) -> Written:
        tokens = model.encode(video, error)
        return Written(model.rows(tokens), tokens.grid, tokens.lengths)

    return code


def _read_features(model: VideoEncoder, level: str, video: Tensor) -> Written:
    features = model(video)
    if level == "clip":
        return Written(features.pooled()[:, None], POOLED)
    if level == "frame":
        return Written(features.of_frames(), Grid(features.grid.t, 1, 1))
    return Written(features.tokens, features.grid)


def encode_videos(
    model: torch.nn.Module, reader: Callable[[Tensor], Written], loader: Iterable[Batch], num_clips: int
) -> Iterator[EncodedVideo]:
    """The ``num_clips`` clips of each readable video, encoded by ``reader``.

    A batch may contain several videos, or part of one.
    """
    clips: dict[int, list[Tensor]] = defaultdict(list)
    spent: dict[int, list[Tensor]] = defaultdict(list)
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    actions: dict[int, list[Tensor]] = defaultdict(list)
    for batch in loader:
        with inference(model):
            try:
                tokens, grid, lengths = reader(batch["video"])
            except ValueError as error:
                frames, _, height, width = batch["video"].shape[1:]
                raise UserError(
                    f"this encoder does not support clips of {frames} frames of {height} x {width} pixels: {error}"
                ) from error
            tokens = tokens.cpu()
        for row, (index, span) in enumerate(zip(batch["index"].tolist(), batch["span"].tolist())):
            clips[index].append(tokens[row])
            spans[index].append(tuple(span))
            if lengths is not None:
                spent[index].append(lengths[row].cpu())
            if "action" in batch:
                actions[index].append(batch["action"][row])
            if len(clips[index]) == num_clips:
                done = torch.stack(actions.pop(index)) if "action" in batch else None
                counts = torch.stack(spent.pop(index)) if lengths is not None else None
                whole = Written(torch.stack(clips.pop(index)), grid, counts)
                yield EncodedVideo(index, whole, spans.pop(index), done)


def _about(
    model: VideoEncoder | VideoTokenizer, level: Level, error: float | None, num_clips: int, source: Source
) -> dict[str, str]:
    """Metadata of the index for all features: their encoder, and the meaning of labels and actions."""
    clip = model.clip
    about = {
        "weights": weights_of(model),
        "clip": f"{clip.num_frames} frames, {clip.sampling}, stride {clip.stride}, {clip.size} pixels",
        "num_clips": str(num_clips),
        "level": level,
        "classes": json.dumps(source.classes),
    }
    if error is not None:
        about["error"] = f"{error:g}"
    if level == IDS:
        about["codebook_size"] = str(model.codebook_size)
    if source.actions is not None:
        about["actions"] = json.dumps(asdict(source.actions))
    return about


def _with_fitting_actions(source: Source, clip: Clip, console: Console) -> Source:
    """The same videos, without actions if the clips skip frames and the actions do not allow that."""
    try:
        if source.actions is not None:
            check_clip(source.actions, clip)
    except UserError:
        console.print(
            f"the actions are omitted: they are discrete, and clips with a stride of {clip.stride} skip frames"
        )
        return replace(source, actions=None)
    return source
