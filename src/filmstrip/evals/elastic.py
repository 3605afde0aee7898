"""Tokens against error: what a tokenizer of variable length makes of few tokens, and how few it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from filmstrip.bounds import Count, PositiveShare, Rate
from filmstrip.data.reading.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference
from filmstrip.nn.length_search import Method
from filmstrip.objectives.elastic import ElasticTokenizer, mean_squared_error
from filmstrip.protocols import Batch, as_float

Found = TypeVar("Found")


@dataclass(frozen=True)
class Spent:
    """What all blocks of a split cost and are worth, each ``M`` (videos times blocks), float32."""

    tokens: Tensor
    errors: Tensor
    """Mean squared error of pixels in 0..1."""
    evaluations: int
    """How often the search for a block's length encoded and decoded it; one where the length was given."""

    def met(self, target: float) -> Tensor:
        """Which blocks have an error of at most ``target``."""
        return self.errors <= target


@dataclass(frozen=True, kw_only=True)
class TokensAgainstError(Evaluation):
    """Error at fixed shares of all tokens, and tokens at fixed errors (mean squared, pixels in 0..1)."""

    shares: tuple[PositiveShare, ...] = (0.125, 0.25, 0.5, 1.0)
    """Of a block's tokens, the same for every block; lengths it was not trained for are not asked for."""
    targets: tuple[Rate, ...] = (0.00025, 0.00075, 0.00375)
    """Errors that each block must meet, with as few tokens as that takes; by default the paper's three."""
    method: Method = "binary"
    """How the fewest tokens are looked for."""
    bins: Count = 100
    """Lengths that ``binned`` search tries."""
    batch_size: Count = 16
    split: str | None = None
    """By default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a tokenizer of variable length."""
        self._tokenizer(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``mse_at_L`` for each length; and ``tokens_for_E``, ``met_E`` (share of blocks) for each target."""
        for share in self.shares:
            length = round(share * self._tokenizer(subject).tokens_per_block)
            if self._tokenizer(subject).min_tokens <= length <= self._tokenizer(subject).max_tokens:
                yield f"mse_at_{length}", self.at_length(subject, length).errors.mean().item()
        for target in self.targets:
            spent = self.at_error(subject, target)
            yield f"tokens_for_{target:g}", spent.tokens.mean().item()
            yield f"met_{target:g}", spent.met(target).float().mean().item()

    def at_length(self, subject: Subject, length: int) -> Spent:
        """Every block of the split in ``length`` tokens."""
        tokenizer = self._tokenizer(subject)

        def look(video: Tensor) -> Tensor:
            video = as_float(video)
            rebuilt = tokenizer.decode(tokenizer.encode(video, length))
            pairs = zip(rebuilt.split(tokenizer.block_frames, 1), video.split(tokenizer.block_frames, 1))
            return torch.cat([mean_squared_error(ours, theirs) for ours, theirs in pairs]).float().cpu()

        errors = torch.cat(self._of_clips(subject, look))
        return Spent(torch.full_like(errors, length), errors, evaluations=1)

    def at_error(self, subject: Subject, target: float) -> Spent:
        """Every block of the split in the fewest tokens that meet ``target``."""
        tokenizer = self._tokenizer(subject)

        def look(video: Tensor) -> Spent:
            fitted = tokenizer.encode_to(
                video, target, method=self.method, bins=self.bins, distance=mean_squared_error
            )
            lengths, errors = fitted.tokens.lengths.flatten(), fitted.errors.flatten()
            return Spent(lengths.float().cpu(), errors.float().cpu(), fitted.evaluations)

        found = self._of_clips(subject, look)
        tokens, errors = (torch.cat([getattr(part, name) for part in found]) for name in ("tokens", "errors"))
        return Spent(tokens, errors, found[0].evaluations)

    def _of_clips(self, subject: Subject, look: Callable[[Tensor], Found]) -> list[Found]:
        """What ``look`` finds in each batch of clips of the split.

        Raises:
            UserError: none can be read.
        """

        def look_at(batch: Batch, before: int) -> Found:
            with inference(subject.objective):
                return look(batch["video"].to(subject.device))

        split = self.split or subject.data.eval_split
        batches = eval_batches(subject.source, subject.data, split, batch_size=self.batch_size)
        found = list(map_batches(subject, batches, look_at))
        if not found:
            raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")
        return found

    def _tokenizer(self, subject: Subject) -> ElasticTokenizer:
        if not isinstance(subject.objective, ElasticTokenizer):
            raise UserError(
                f"{type(subject.objective).__name__} is no tokenizer of variable length: this evaluation needs one, "
                "such as tokenizers.elastictok"
            )
        return subject.objective
