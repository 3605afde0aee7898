"""The configuration of a tokenizer's quantiser: any of them for any tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from filmstrip.bounds import Bounds, Count, CountOrZero, NotEmpty, Weight
from filmstrip.errors import UserError
from filmstrip.nn.quantise import EMAQuantiser, Quantiser, VectorQuantiser
from filmstrip.nn.quantise_free import FSQ, LookupFree
from filmstrip.nn.quantise_gumbel import GumbelQuantiser


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """The codes that latents are replaced by."""

    kind: Literal["ema", "learnt", "fsq", "lookup_free", "gumbel"] = "ema"
    """Kind of quantiser. ``ema``: moving averages of latents, restarted when dead; ``learnt``: by gradient; ``fsq``:
    a grid of ``levels``; ``lookup_free``: signs of channels; ``gumbel``: a relaxed choice."""
    size: Count = 1024
    """Number of codes; FSQ's is the product of its levels, and a lookup-free one is a power of two."""
    dim: Count = 256
    """Channels of a code (``ema``, ``learnt``, ``gumbel``)."""
    num_codebooks: Count = 1
    """Codebooks that share the channels (``ema``, ``learnt``)."""
    unit: bool = False
    """Whether latents and codes lie on the unit sphere (``ema``, ``learnt``)."""
    commitment: Weight = 0.25
    """Weight of the distance from latents to their codes."""
    restart_below: Weight = 1.0
    """Latents a step, on average, below which a code restarts; zero for never (``ema``)."""
    levels: Annotated[tuple[Annotated[int, Bounds(min=2)], ...], NotEmpty] = (8, 8, 8, 5, 5, 5)
    """Values that each channel takes (``fsq``)."""
    kl_weight: Weight = 6.6 / 192
    """Weight of the divergence from a uniform prior, nats a latent (``gumbel``)."""
    warmup_steps: CountOrZero = 5_000
    """Steps until that weight is reached (``gumbel``)."""
    anneal_steps: Count = 150_000
    """Steps until the choice is as sharp as it gets, a temperature of 1/16 (``gumbel``); shorten it with the run."""

    def build(self) -> Quantiser:
        """Build the quantiser with fresh codes.

        Raises:
            UserError: the sizes do not fit the kind.
        """
        if self.size < 2:
            raise UserError(f"a codebook has two codes or more, not {self.size}")
        match self.kind:
            case "fsq":
                return FSQ(self.levels)
            case "lookup_free":
                if self.size & (self.size - 1):
                    raise UserError(f"a lookup-free codebook has a power of two of codes, not {self.size}")
                return LookupFree(self.size.bit_length() - 1, commitment=self.commitment)
            case "gumbel":
                return GumbelQuantiser(
                    self.size,
                    self.dim,
                    kl_weight=self.kl_weight,
                    warmup_steps=self.warmup_steps,
                    anneal_steps=self.anneal_steps,
                )
        shared = {"num_codebooks": self.num_codebooks, "unit": self.unit, "commitment": self.commitment}
        if self.kind == "learnt":
            return VectorQuantiser(self.size, self.dim, **shared)
        return EMAQuantiser(self.size, self.dim, restart_below=self.restart_below, **shared)
