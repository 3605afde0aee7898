"""Tokens against error: what a tokenizer of variable length makes of few tokens, and how few it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.data.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.inference import inference
from filmstrip.nn.length_search import Method
from filmstrip.objectives.elastic import ElasticTokenizer, mean_squared_error
from filmstrip.protocols import Batch, as_float


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

    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Of a block's tokens, the same for every block; lengths it was not trained for are not asked for."""
    targets: tuple[float, ...] = (0.00025, 0.00075, 0.00375)
    """Errors that each block must meet, with as few tokens as that takes; by default the paper's three."""
    method: Method = "binary"
    """How the fewest tokens are looked for."""
    bins: int = 100
    """Lengths that ``binned`` search tries."""
    batch_size: int = 16
    split: str | None = None
    """By default the data's ``eval_split``."""

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
        tokenizer, errors = self._tokenizer(subject), []
        with inference(subject.objective):
            for batch in self._batches(subject):
                video = as_float(batch["video"].to(subject.device))
                rebuilt = tokenizer.decode(tokenizer.encode(video, length))
                pairs = zip(rebuilt.split(tokenizer.block_frames, 1), video.split(tokenizer.block_frames, 1))
                errors += [mean_squared_error(ours, theirs) for ours, theirs in pairs]
        errors = torch.cat(errors).float().cpu()
        return Spent(torch.full_like(errors, length), errors, evaluations=1)

    def at_error(self, subject: Subject, target: float) -> Spent:
        """Every block of the split in the fewest tokens that meet ``target``."""
        with inference(subject.objective):
            found = [
                self._tokenizer(subject).encode_to(
                    batch["video"].to(subject.device),
                    target,
                    method=self.method,
                    bins=self.bins,
                    distance=mean_squared_error,
                )
                for batch in self._batches(subject)
            ]
        tokens = torch.cat([fitted.tokens.lengths.flatten() for fitted in found])
        errors = torch.cat([fitted.errors.flatten() for fitted in found])
        return Spent(tokens.float().cpu(), errors.float().cpu(), found[0].evaluations)

    def _batches(self, subject: Subject) -> Iterator[Batch]:
        """The clips of the split.

        Raises:
            UserError: none can be read.
        """
        split = self.split or subject.data.eval_split
        count = 0
        for batch in eval_batches(subject.source, subject.data, split, batch_size=self.batch_size):
            count += 1
            yield batch
        if not count:
            raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")

    def _tokenizer(self, subject: Subject) -> ElasticTokenizer:
        if not isinstance(subject.objective, ElasticTokenizer):
            raise UserError(
                f"{type(subject.objective).__name__} is no tokenizer of variable length: this evaluation needs one, "
                "such as tokenizers.elastictok"
            )
        return subject.objective
