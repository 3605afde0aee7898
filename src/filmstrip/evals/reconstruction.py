"""Reconstruction quality of a tokenizer: similarity of decoded frames, and use of the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.augment.levels import to_levels
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.evals.frame_metrics import FrameMetrics, check_frames
from filmstrip.evals.video_features import FeatureNetwork, FeaturePair, VideoDistance
from filmstrip.inference import inference
from filmstrip.protocols import Batch, TokenizerModule, Tokens, find_tokenizer
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Evaluation):
    """PSNR, SSIM, LPIPS and FVD of reconstructed clips against the clips, and the use of the codebook.

    Of a generator, its tokenizer is evaluated.
    """

    num_videos: Count | None = None
    """Number of videos, the first of the split; by default all."""
    batch_size: Count = 8
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""
    features: FeatureNetwork = field(default_factory=FeatureNetwork)
    """Feature network of the FVD."""
    lpips: tuple[Path, ...] = ()
    """Published LPIPS weights (AlexNet, as in TECO, or VGG-16, and the linear layers: one file or two); by default
    random features stand in."""

    def check(self, subject: Subject) -> None:
        """There is a tokenizer, at least two videos, and the networks are available."""
        _tokenizer_of(subject)
        self.features.check(self.num_videos, subject.data.clip.num_frames)
        check_frames(self.lpips, subject.data.clip.size)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield the metrics; names state frame size or network, preprocessing, frames and number of clips.

        Raises:
            UserError: the objective neither is nor has a tokenizer, or no clip is readable.
        """
        tokenizer = _tokenizer_of(subject)
        network = self.features.build(subject.device)
        metrics = FrameMetrics(self.lpips, device=subject.device)
        frames: dict[str, list[Tensor]] = {name: [] for name in metrics.names}
        distance, use = VideoDistance(network), CodeUse()

        def reconstruct(batch: Batch, before: int) -> tuple[CodeUse, dict[str, Tensor], FeaturePair]:
            video, used = batch["video"], CodeUse()
            with inference(tokenizer):
                tokens = tokenizer.encode(video)
                rebuilt = to_levels(tokenizer.decode(tokens))
            used.update(tokens)
            return used, metrics(rebuilt, video), distance.features(real=video, generated=rebuilt)

        for used, found, features in map_clips(
            subject, reconstruct, self.split, max_clips=self.num_videos, batch_size=self.batch_size
        ):
            use.add(used)
            distance.add(features)
            for name, values in found.items():
                frames[name].append(values)
        joined = {name: torch.cat(values) for name, values in frames.items()}
        count, length = joined["psnr"].shape
        size = subject.data.clip.size
        shape = f"{size}x{size}/{length}f/n{count}"
        for name, values in joined.items():
            yield f"{name}/{shape}", float(values.mean())
        yield from distance.values("rfvd")
        yield from use.values(tokenizer.codebook_size, count)


def _tokenizer_of(subject: Subject) -> TokenizerModule:
    tokenizer = find_tokenizer(subject.objective)
    if tokenizer is None:
        raise UserError(f"{type(subject.objective).__name__} is not a tokenizer: it does not encode and decode")
    return tokenizer


class CodeUse:
    """Counts of each id, per codebook."""

    def __init__(self) -> None:
        self._counts: dict[int, Tensor] = {}

    def update(self, tokens: Tokens) -> None:
        """Count the ids of a batch; continuous tokens are ignored."""
        if tokens.ids is None:
            return
        ids, kept = tokens.ids, tokens.kept()
        positions = tokens.grid.t * tokens.grid.h * tokens.grid.w
        books = ids.unflatten(1, (positions, -1))
        for book, column in enumerate(books.unbind(dim=2)):
            self._count(book, torch.bincount((column if kept is None else column[kept]).flatten()).cpu())

    def add(self, other: CodeUse) -> None:
        """Add the counts of another."""
        for book, counted in other._counts.items():
            self._count(book, counted)

    def _count(self, book: int, counted: Tensor) -> None:
        before = self._counts.get(book, counted.new_zeros(0))
        total = counted.new_zeros(max(len(before), len(counted)))
        total[: len(before)] += before
        total[: len(counted)] += counted
        self._counts[book] = total

    def values(self, codebook_size: int | None, clips: int) -> Iterator[tuple[str, float]]:
        """Yield the perplexity of all ids and the share of codes that occur, averaged over codebooks."""
        if not self._counts:
            return
        perplexity = used = 0.0
        for counts in self._counts.values():
            share = counts.double() / counts.sum()
            perplexity += float((-torch.xlogy(share, share).sum()).exp()) / len(self._counts)
            used += int((counts > 0).sum()) / len(self._counts)
        yield f"code_perplexity/n{clips}", perplexity
        if codebook_size:
            yield f"codes_used/n{clips}", used / codebook_size
