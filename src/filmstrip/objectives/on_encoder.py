"""Tasks on a pretrained encoder, which is trained with them, frozen, or goes on learning by its own loss too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from filmstrip.bounds import Weight
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.objectives.config import AroundLearnerConfig, FrozenPart
from filmstrip.protocols import (
    Batch,
    EncoderModule,
    Features,
    LayeredLearner,
    Loss,
    Objective,
    TokenizerModule,
    find_tokenizer,
)


class OnEncoder(Objective):
    """Owns the encoder alone, or with ``learner_weight`` the whole self-supervised objective that has it."""

    def __init__(self, config: OnEncoderConfig) -> None:
        super().__init__()
        learner = config.learner.build()
        own = encoder_of(learner)
        self.frozen, self.learner_weight = config.frozen, config.learner_weight
        self.learns = config.learner_weight > 0
        if self.learns and config.frozen:
            raise UserError("a frozen encoder does not learn: set objective.learner_weight to 0")
        if self.learns and not (isinstance(learner, LayeredLearner) and hasattr(own, "grid")):
            raise UserError(
                f"{type(learner).__name__} does not tell its layers with its loss: set objective.learner_weight to 0"
            )
        if not getattr(own, "depth", 0):
            raise UserError(
                f"the encoder of {type(learner).__name__} has no layers of one width, which are read here"
            )
        self.learner = learner if self.learns else own
        if config.frozen:
            own.requires_grad_(False)

    @property
    def encoder(self) -> EncoderModule:
        """The encoder, which the learner owns if there is one."""
        return encoder_of(self.learner) if self.learns else self.learner

    @property
    def tokenizer(self) -> TokenizerModule | None:
        """The encoder's tokenizer, if it has one."""
        return find_tokenizer(self.learner)

    def needs(self, *keys: str) -> tuple[str, ...]:
        """These keys of batches, and those of the learner."""
        return tuple(dict.fromkeys((*(self.learner.requires if self.learns else ()), *keys)))

    def train(self, mode: bool = True) -> Self:
        """As any module, but a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def features(self, batch: Batch) -> tuple[Loss | None, Features]:
        """The learner's loss, if there is one, and the features of a batch with all layers."""
        if not self.learns:
            return None, self.features_of(batch["video"])
        assert isinstance(self.learner, LayeredLearner), "checked when it was built"
        loss, layers = self.learner.loss_and_layers(batch)
        return loss, Features(layers[-1], self.encoder.grid, layers)

    def features_of(self, video: torch.Tensor) -> Features:
        """Features of video with all layers.

        The last layer's tokens come after the encoder's norm, unless it learns by its own loss, which tells layers
        alone.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            made = self.encoder(video, layers=True)
        last = made.layers[-1] if self.learns else made.tokens
        return Features(last, made.grid, (*made.layers[:-1], last))

    def after_step(self, step: int) -> None:
        """The learner's own, if there is one."""
        if self.learns:
            self.learner.after_step(step)

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """As the learner says of its own."""
        inner = name.removeprefix("learner.")
        if self.learns and inner != name:
            return self.learner.no_decay(inner, param)
        return super().no_decay(name, param)

    def rate_of(self, name: str) -> float:
        """As the learner says of its own."""
        inner = name.removeprefix("learner.")
        return self.learner.rate_of(inner) if self.learns and inner != name else super().rate_of(name)

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; everything else comes after its last."""
        inner = name.removeprefix("learner.")
        return self.learner.depth_of(inner) if inner != name else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class OnEncoderConfig(AroundLearnerConfig):
    """An encoder, whose layers have one width, and how it is trained."""

    frozen: bool = False
    """Whether the encoder is not trained."""
    learner_weight: Weight = 0.0
    """Weight of the encoder's own loss on the same clips; zero trains it by the task's alone."""

    def goes_on_learning(self) -> str | None:
        """See :meth:`AroundLearnerConfig.goes_on_learning`."""
        return "set objective.learner_weight to 0" if self.learner_weight else None

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder, if it is not trained, or what it freezes itself, such as a tokenizer."""
        if self.frozen:
            return {"learner": FrozenPart("init")}
        names = list(self.learner.frozen_parts())
        if not self.learner_weight:  # of the encoder alone
            names = [name.removeprefix("encoder.") for name in names if name.startswith("encoder.")]
        return {f"learner.{name}": FrozenPart("init") for name in names}
