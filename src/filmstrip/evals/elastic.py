"""Rate against distortion of a variable-length tokenizer: error at fixed lengths, tokens at fixed errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from filmstrip.bounds import Count, PositiveShare, Rate
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference
from filmstrip.nn.length_search import Method
from filmstrip.objectives.elastic import ElasticTokenizer, mean_squared_error
from filmstrip.protocols import Batch, as_float
from filmstrip.runs.evaluation import Evaluation, Subject

Found = TypeVar("Found")


@dataclass(frozen=True)
class BlockResults:
    """Tokens and errors of all blocks of a split, each ``M`` (videos times blocks), float32."""

    tokens: Tensor
    """Number of tokens."""
    errors: Tensor
    """Mean squared error of pixels in 0..1."""
    evaluations: int
    """Number of times the length search encoded and decoded a block; one for a fixed length."""

    def met(self, target: float) -> Tensor:
        """Mask of the blocks whose error is at most ``target``."""
        return self.errors <= target


@dataclass(frozen=True, kw_only=True)
class TokensAgainstError(Evaluation):
    """Error at fixed shares of all tokens, and tokens at fixed errors (mean squared, pixels in 0..1)."""

    shares: tuple[PositiveShare, ...] = (0.125, 0.25, 0.5, 1.0)
    """Fixed lengths, as shares of a block's maximum number of tokens; lengths outside the trained range are
    omitted."""
    targets: tuple[Rate, ...] = (0.00025, 0.00075, 0.00375)
    """Maximum errors of a block, met with the minimum number of tokens; by default the paper's three."""
    method: Method = "binary"
    """Search method for the minimum number of tokens."""
    bins: Count = 100
    """Number of lengths that ``binned`` search tries."""
    batch_size: Count = 16
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a variable-length tokenizer."""
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

    def at_length(self, subject: Subject, length: int) -> BlockResults:
        """Results for every block of the split at ``length`` tokens."""
        tokenizer = self._tokenizer(subject)

        def evaluate(video: Tensor) -> Tensor:
            video = as_float(video)
            rebuilt = tokenizer.decode(tokenizer.encode(video, length))
            pairs = zip(rebuilt.split(tokenizer.block_frames, 1), video.split(tokenizer.block_frames, 1))
            return torch.cat([mean_squared_error(ours, theirs) for ours, theirs in pairs]).float().cpu()

        errors = torch.cat(self._of_clips(subject, evaluate))
        return BlockResults(torch.full_like(errors, length), errors, evaluations=1)

    def at_error(self, subject: Subject, target: float) -> BlockResults:
        """Results for every block of the split at the minimum number of tokens that meets ``target``."""
        tokenizer = self._tokenizer(subject)

        def evaluate(video: Tensor) -> BlockResults:
            fitted = tokenizer.encode_to(
                video, target, method=self.method, bins=self.bins, distance=mean_squared_error
            )
            lengths, errors = fitted.tokens.lengths, fitted.errors.flatten()
            assert lengths is not None, "a tokenizer of variable length says how many tokens it used"
            return BlockResults(lengths.flatten().float().cpu(), errors.float().cpu(), fitted.evaluations)

        found = self._of_clips(subject, evaluate)
        tokens, errors = (torch.cat([getattr(part, name) for part in found]) for name in ("tokens", "errors"))
        return BlockResults(tokens, errors, found[0].evaluations)

    def _of_clips(self, subject: Subject, function: Callable[[Tensor], Found]) -> list[Found]:
        """Results of ``function`` for each batch of clips of the split.

        Raises:
            UserError: no clip is readable.
        """

        def evaluate_batch(batch: Batch, before: int) -> Found:
            with inference(subject.objective):
                return function(batch["video"].to(subject.device))

        split = self.split or subject.data.eval_split
        batches = EvalLoader(subject.source, subject.data, split, batch_size=self.batch_size)
        found = list(map_batches(subject, batches, evaluate_batch))
        if not found:
            raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")
        return found

    def _tokenizer(self, subject: Subject) -> ElasticTokenizer:
        if not isinstance(subject.objective, ElasticTokenizer):
            raise UserError(
                f"{type(subject.objective).__name__} is not a variable-length tokenizer: this evaluation needs one, "
                "such as tokenizers.elastictok"
            )
        return subject.objective
