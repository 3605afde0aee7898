"""Finding files and moments by text: vectors of moments on disk, made once, and compared with those of texts."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from filmstrip.commands.search import Search
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.commands.work.encode import find_source
from filmstrip.commands.work.hub_blip import load_hub_blip
from filmstrip.data.features import FeatureSource, FeatureWriter, names_in
from filmstrip.data.files import VideoFile, files_of
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.layouts.folder import find_media
from filmstrip.data.layouts.manifest import manifest_of
from filmstrip.data.layouts.shards import is_shards
from filmstrip.data.reading.views import views_of_parts
from filmstrip.data.texts import tokenised
from filmstrip.errors import UserError
from filmstrip.files import cache_folder
from filmstrip.inference import device_of, inference
from filmstrip.progress import bars, counted, shown
from filmstrip.runs.contents import is_run
from filmstrip.runs.loading import default_device
from filmstrip.runs.text_video import TextVideoModel, as_text_video, load_text_video
from filmstrip.text.tokenizers import UNKNOWN, TextTokenizer, WordTokenizer
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError
from filmstrip.weights.fingerprint import fingerprint

SECONDS_AT_RISK = 60.0
"""Maximum time between computing vectors and having them on disk, in seconds."""


@dataclass(frozen=True)
class Found:
    """One result."""

    path: str
    start: float
    """First second of the moment."""
    end: float
    similarity: float
    """Cosine of the angle between the moment and the text."""


def search(command: Search) -> int:
    """Print what is most similar to each text; returns 1 if some files could not be read, else 0.

    Raises:
        UserError: the run encodes no text, there are no videos, or the index was made by another model or with other
            moments.
    """
    if not all(text.strip() for text in command.texts) or not command.texts:
        raise UserError(f'search needs a text: filmstrip search {command.run} {command.videos} "a red disc"')
    searcher = load_searcher(command.run)
    files = find_files(command.videos)
    folder = command.index or _default_index(command.run, searcher)
    console = Console(stderr=True)
    unreadable = index_files(
        searcher, files, folder, seconds=command.seconds, batch_size=command.batch_size, console=console
    )
    vectors, moments = read_index(folder, files)
    if not moments:
        raise UserError(
            f"none of the {len(files)} files of {command.videos} can be read: `filmstrip data check` says why"
        )
    if unknown := unknown_words(searcher.tokenizer, command.texts):
        console.print(Text(f"the model has never read {', '.join(map(repr, unknown))}", "yellow"))
    queries = encode_texts(searcher, command.texts)
    results = [
        list(ranked(vectors @ query, moments, command.top_k, each_moment=command.moments)) for query in queries
    ]
    if command.json:
        print(
            json.dumps(
                {
                    "results": [
                        {"text": text, "found": [asdict(one) for one in found]}
                        for text, found in zip(command.texts, results)
                    ],
                    "unreadable": unreadable,
                },
                indent=2,
            )
        )
    else:
        _print(command.texts, results, unreadable)
    return int(bool(unreadable))


def find_files(path: Path) -> list[VideoFile]:
    """The files to search: all videos and images in a folder, or those of a manifest or of shards.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir() or manifest_of(path) or is_shards(path):
        return files_of(find_source([path]))
    files = [VideoFile(os.path.relpath(file, path), file) for file in find_media(path)]
    if not files:
        raise UserError(f"{path} holds no videos and no images")
    return files


def load_searcher(source: str) -> TextVideoModel:
    """A model of video and text from a run folder, or from the Hub or its layout.

    Raises:
        UserError: there is none, or it encodes no text.
    """
    if (found := load_text_video(source)) is not None:
        return found
    if (loaded := load_hub_blip(source, writes=False)) is None:
        raise UserError(f"{source} is no SigLIP, CLIP or BLIP for retrieval: give one, or a run folder")
    objective, data = loaded
    return as_text_video(objective.to(default_device()), data.clip, cast(Captioned, data.reads))


def index_files(
    searcher: TextVideoModel,
    files: Sequence[VideoFile],
    folder: Path,
    *,
    seconds: float,
    batch_size: int = 8,
    console: Console | None = None,
) -> list[dict[str, str]]:
    """Encode the moments of those files that the index in ``folder`` does not hold yet; returns the unreadable ones.

    Raises:
        UserError: the index was made by another model, or with other moments.
        OSError: the index cannot be written; what was written before is kept.
    """
    clip = searcher.clip
    about = {
        "made_for": "search",
        "weights": fingerprint(searcher.objective),
        "clip": f"{clip.num_frames} frames, {clip.sampling}, stride {clip.stride}, {clip.size} pixels",
        "seconds": f"{seconds:g}",
    }
    unreadable: list[dict[str, str]] = []

    def kept() -> str:
        count = len(names_in(folder))
        return f"{folder} keeps {count} encoded files: the same command resumes" if count else NOTHING_KEPT

    with keeping(kept), FeatureWriter(folder, about=about) as writer:
        left = [file for file in files if stamped(file) not in writer]
        flushed = time.monotonic()
        with shown(bars(console or Console(stderr=True))), counted("encoding", len(left)) as done:
            for number, file in enumerate(left, start=1):
                try:
                    vectors, spans = encode_moments(searcher, file, seconds, batch_size)
                except (DecodeError, OSError) as error:
                    reason = error.reason if isinstance(error, DecodeError) else str(error.strerror or error)
                    unreadable.append({"path": _path(file), "reason": reason})
                else:
                    writer.add(stamped(file), vectors[:, None], spans=spans)
                done(number)
                if time.monotonic() - flushed > SECONDS_AT_RISK:
                    writer.flush()
                    flushed = time.monotonic()
    return unreadable


def encode_moments(
    searcher: TextVideoModel, file: VideoFile, seconds: float, batch_size: int
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Vectors of a file's moments, ``M D``, and their first and last second.

    Raises:
        DecodeError, OSError: the file cannot be read.
    """
    vectors: list[Tensor] = []
    spans: list[tuple[float, float]] = []
    waiting: list[Tensor] = []

    def encode() -> None:
        with inference(searcher.objective):
            video = torch.cat(waiting).to(device_of(searcher.objective))
            vectors.append(searcher.model.encode_video(video).float().cpu())
        waiting.clear()

    with open_video(file.open()) as decoder:
        parts = list(moments_of(decoder.info.duration, seconds))
        for (start, end), views in zip(parts, views_of_parts(decoder, searcher.clip, parts)):
            waiting.append(views.video)
            spans.append((start or 0.0, decoder.info.duration if end is None else end))
            if len(waiting) == batch_size:
                encode()
        if waiting:
            encode()
    return torch.cat(vectors), spans


def moments_of(duration: float, seconds: float) -> Iterator[tuple[float | None, float | None]]:
    """First and last second of each moment, about ``seconds`` long; none where a video is no longer than one."""
    count = max(1, round(duration / seconds)) if math.isfinite(duration) else 1
    if count == 1:
        yield None, None
        return
    for i in range(count):
        yield i * duration / count, (i + 1) * duration / count


def stamped(file: VideoFile) -> str:
    """The name of a file in an index, which changes when the file does."""
    try:
        about = os.stat(file.path)
    except OSError:
        return f"{_path(file)} (missing)"
    return f"{_path(file)} ({about.st_size} bytes, {about.st_mtime_ns})"


def _path(file: VideoFile) -> str:
    """The absolute path of a file; of an archive's member, with its key."""
    path = os.path.abspath(file.path)
    return path if file.offset is None else f"{path}/{file.name.partition('/')[2]}"


def read_index(folder: Path, files: Sequence[VideoFile]) -> tuple[Tensor, list[tuple[str, float, float]]]:
    """The vectors of files in an index, ``M D``, and each one's path and span."""
    wanted = {stamped(file): _path(file) for file in files}
    if not names_in(folder):
        return torch.zeros(0, 0), []
    source = FeatureSource(folder)
    chosen = [i for i, row in enumerate(source.rows) if row.name in wanted]
    if not chosen:
        return torch.zeros(0, 0), []
    rows = [source.rows[i] for i in chosen]
    return source.read(chosen)[:, 0].float(), [(wanted[r.name], r.start or 0.0, r.end or 0.0) for r in rows]


def encode_texts(searcher: TextVideoModel, texts: Sequence[str]) -> Tensor:
    """Vectors of texts, ``N D``."""
    ids, lengths = tokenised(searcher.tokenizer, texts, searcher.reads.max_length, start=searcher.reads.start)
    device = device_of(searcher.objective)
    with inference(searcher.objective):
        return searcher.model.encode_text(ids.to(device), lengths.to(device)).float().cpu()


def unknown_words(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[str]:
    """Words of texts that a tokenizer of words does not know; others know all."""
    if not isinstance(tokenizer, WordTokenizer):
        return []
    words = dict.fromkeys(word for text in texts for word in text.split())
    return [word for word in words if tokenizer.special(UNKNOWN) in tokenizer.encode(word)]


def ranked(
    similarity: Tensor, moments: Sequence[tuple[str, float, float]], top_k: int, *, each_moment: bool
) -> Iterator[Found]:
    """The most similar moments, or the most similar files, each with its best moment."""
    seen: set[str] = set()
    for i in similarity.argsort(descending=True, stable=True).tolist():
        path, start, end = moments[i]
        if each_moment or path not in seen:
            seen.add(path)
            yield Found(path, round(start, 3), round(end, 3), round(similarity[i].item(), 4))
            top_k -= 1
        if not top_k:
            return


def _default_index(source: str, searcher: TextVideoModel) -> Path:
    if is_run(source):
        return Path(source) / "search"
    return cache_folder() / "search" / fingerprint(searcher.objective)[:16]


def _print(texts: Sequence[str], results: Sequence[Sequence[Found]], unreadable: Sequence[dict[str, str]]) -> None:
    console = Console()
    for text, found in zip(texts, results):
        table = Table(box=None, padding=(0, 2, 0, 0), title=Text(text, "bold"), title_justify="left")
        for name in ("", "similarity", "moment", "file"):
            table.add_column(name, justify="left" if name in ("moment", "file") else "right", overflow="fold")
        for place, one in enumerate(found, start=1):
            here = os.path.relpath(one.path)
            path = here if len(here) < len(one.path) else one.path
            span = f"{_clock(one.start)} to {_clock(one.end)}"
            table.add_row(str(place), f"{one.similarity:.3f}", span, Text(path))
        console.print(table)
    for bad in unreadable:
        console.print(Text(f"not read: {bad['path']}: {bad['reason']}", "yellow"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
