"""Vanilla transformer: the steps of a procedure from mask tokens among the clips that are seen.

Features of the seen clips, by a frozen encoder, and one mask token in the place of each feature that is not there go
through plain transformer blocks; an attentive classifier names the step of every place that is asked for. What VEDIT
replaces: the baseline of its figures 3 and 7, in the same sizes.
Lin et al., "VEDIT: Latent Prediction Architecture for Procedural Video Representation Learning", 2024.

    filmstrip train procedures.transformer --data FEATURES

Where we deviate: the paper's baseline is the decoder of SCHEMA; this one takes any places to fill and any tokens of a
clip, as VEDIT does, and like VEDIT reads no text. Its blocks are pre-norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.evals.step_accuracy import StepAccuracy
from filmstrip.nn.attentive_pooling import AttentivePooling
from filmstrip.nn.block import Block
from filmstrip.nn.masks import Mask
from filmstrip.nn.positions import sincos_table
from filmstrip.objectives.step_prediction import StepPrediction, StepPredictionConfig
from filmstrip.protocols import Batch
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW


class ProcedureTransformer(nn.Module):
    """Plain blocks over all tokens of all clips: ``B S N D -> B S N width``, with a mask token where none is given.

    Clips are told apart by sines and cosines of their place, tokens of a clip by a learned vector. Every place sees
    every other one but padding.
    """

    def __init__(self, config: StepTransformerConfig) -> None:
        super().__init__()
        width = self.width = config.width
        self.embed = nn.Linear(config.feature_width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.token_embed = nn.Parameter(torch.empty(config.num_tokens, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(Block(width, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, features: Tensor, seen: Tensor, target: Tensor) -> Tensor:
        """What the network thinks is at each place; ``seen`` and ``target`` are ``B S`` bool.

        Raises:
            ValueError: clips have another number of tokens than the network was built for.
        """
        _, places, tokens, _ = features.shape
        if tokens != len(self.token_embed):
            raise ValueError(f"expected {len(self.token_embed)} tokens in a clip, got {tokens}")
        x = torch.where(seen[..., None, None], self.embed(features), self.mask_token)
        x = x + rearrange(sincos_table(places, self.width).to(x), "s d -> s 1 d") + self.token_embed
        used = repeat(seen | target, "b s -> b (s n)", n=tokens)
        mask = Mask(lambda b, h, q, k: used[b, k], batch=len(used))
        x = rearrange(x, "b s n d -> b (s n) d")
        for block in self.blocks:
            x = block(x, mask=mask)
        return rearrange(self.norm(x), "b (s n) d -> b s n d", n=tokens)


class StepTransformer(StepPrediction):
    """Mask tokens to steps."""

    def __init__(self, config: StepTransformerConfig) -> None:
        super().__init__()
        self.transformer = ProcedureTransformer(config)
        self.classifier = AttentivePooling(config.width, config.num_steps)

    def logits(self, batch: Batch, seeds: Tensor) -> Tensor:
        """``B S steps``; nothing is drawn."""
        tokens = self.transformer(batch["features"], batch["seen"], batch["target"])
        logits = self.classifier(rearrange(tokens, "b s n d -> (b s) n d"))
        return rearrange(logits, "(b s) c -> b s c", b=len(tokens))

    def depth_of(self, name: str) -> int:
        """The embedding is layer 0, blocks 1 to ``depth``, the classifier above them."""
        part, _, rest = name.removeprefix("transformer.").partition(".")
        if part == "blocks":
            return int(rest.split(".")[0]) + 1
        above = name.startswith("classifier") or part == "norm"
        return len(self.transformer.blocks) + 1 if above else 0


@dataclass(frozen=True, kw_only=True)
class StepTransformerConfig(StepPredictionConfig):
    """The network's size."""

    width: Count = 2048
    depth: Count = 12
    num_heads: Count = 32

    def build(self) -> StepTransformer:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        return StepTransformer(self)


def tiny() -> Run:
    """A narrow one; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5),
            batch_size=32,
        ),
        objective=StepTransformerConfig(width=64, depth=2, num_heads=4),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(200)),
        evals=(StepAccuracy(),),
    )


def coin_forecast() -> Run:
    """The next step in COIN, with VEDIT's training and as many blocks of its width: a third of its parameters."""
    return replace(
        find("procedures.vedit:coin_forecast"), objective=StepTransformerConfig(width=2048, depth=12, num_heads=32)
    )
