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

from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.evals.step_accuracy import StepAccuracy
from filmstrip.models.procedure_transformer import ProcedureTransformer
from filmstrip.nn.attentive_pooling import AttentivePooling
from filmstrip.objectives.step_prediction import StepPrediction, StepPredictionConfig
from filmstrip.protocols import Batch
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop, Optim


class StepTransformer(StepPrediction):
    """Mask tokens to steps."""

    def __init__(self, transformer: ProcedureTransformer, classifier: AttentivePooling) -> None:
        super().__init__()
        self.transformer = transformer
        self.classifier = classifier

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
    """The network's size; the defaults are those of VEDIT's with 12 layers."""

    width: Count = 2048
    depth: Count = 12
    num_heads: Count = 32

    def build(self) -> StepTransformer:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        transformer = ProcedureTransformer(
            feature_width=self.feature_width,
            num_tokens=self.num_tokens,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
        )
        return StepTransformer(transformer, AttentivePooling(self.width, self.num_steps))


def tiny() -> Run:
    """A narrow one; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5),
            batch_size=32,
        ),
        objective=StepTransformerConfig(width=64, depth=2, num_heads=4),
        optim=Optim(lr=1e-3),
        train=Loop(steps=200),
        evals=(StepAccuracy(),),
    )


def coin_forecast() -> Run:
    """The next step in COIN, with VEDIT's training and as many blocks of its width: a third of its parameters."""
    return replace(find("procedures.vedit:coin_forecast"), objective=StepTransformerConfig())
