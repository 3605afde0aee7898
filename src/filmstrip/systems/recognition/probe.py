"""Probes of every layer that learn beside a self-supervised network, which never sees a label.

Each layer's tokens pass a stop-gradient and a probe: one attention from a learned query, and a linear layer. The
network goes on learning by its own loss on the labelled videos, so that it fits them, or is ``frozen``. The layer
that classifies is the one whose probe does best on the training videos that no probe learns from. Toto's protocol for
ImageNet and Kinetics (Rajasegaran et al., "An Empirical Study of Autoregressive Pre-training from Videos", 2025), for
any self-supervised method with an encoder of equal layers.

    filmstrip train recognition.probe --init runs/toto --data PATH
    filmstrip predict RUN clip.mp4

``--init`` is a run of the method, whose sizes are taken over where they differ from the preset's.

Where we deviate: the paper takes the best layer on the test set, we hold out a fifth of the training videos from the
probes (``hold_out``; zero trains on all of them, and chooses by the training loss). Batch, warm-up, weight decay and
crops are not in the paper: a million tokens a batch, 5%, 0.1 and random crops are ours. Gradients are not clipped,
since one norm over all would let probes slow down the network. Tokens are normalised before a probe's attention.

The paper reports (top-1 of the best layer, for base, large and 1b): ImageNet 64.7, 71.1, 75.3; Kinetics-400 59.3,
65.3, 74.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.inference import encoder_of
from filmstrip.nn.attentive_pooling import PlainAttentivePooling
from filmstrip.objectives.config import AroundLearnerConfig, FrozenPart
from filmstrip.protocols import (
    Batch,
    EncoderModule,
    LayeredLearner,
    Loss,
    Objective,
    TokenizerModule,
    find_tokenizer,
)
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

SMOOTHING = 0.01
"""Weight of a batch in the moving average of each layer's loss on held-out videos."""


class Probe(Objective):
    """A self-supervised objective and a probe of every layer of its encoder; a classifier by the best of them."""

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.learner = config.learner.build()
        self.frozen = config.frozen
        self.hold_out = config.hold_out
        encoder = encoder_of(self.learner)
        if len(self.learner.phases()) != 1 or not hasattr(encoder, "depth"):
            raise UserError(
                f"{type(self.learner).__name__} cannot be probed: it needs an encoder with layers of one width, and "
                "one optimiser"
            )
        probes = (PlainAttentivePooling(encoder.width, config.num_classes) for _ in range(encoder.depth))
        self.probes = nn.ModuleList(probes)
        self.register_buffer("held_out_nats", torch.zeros(encoder.depth))
        self.requires = tuple(dict.fromkeys((*self.learner.requires, "label", "index")))
        if self.frozen:
            self.requires = ("label", "index")  # and video or tokens: what the encoder reads
            self.learner.requires_grad_(False)
            self.train(self.training)

    @property
    def encoder(self) -> EncoderModule:
        """The learner's encoder."""
        return encoder_of(self.learner)

    @property
    def tokenizer(self) -> TokenizerModule | None:
        """The learner's tokenizer, if it has one."""
        return find_tokenizer(self.learner)

    def train(self, mode: bool = True) -> Self:
        """As any module, but a frozen network stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.learner.eval()
        return self

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The learner's own loss and the cross-entropy of every probe, which does not reach the learner."""
        loss, layers = self._learn(batch)
        label = batch["label"]
        nats, correct = [], []
        for probe, tokens in zip(self.probes, layers, strict=True):
            logits = probe(tokens.detach()).float()
            nats.append(F.cross_entropy(logits, label, reduction="none"))
            correct.append(logits.detach().argmax(dim=1) == label)
        each = torch.stack(nats)
        held = self._held_out(batch["index"])
        if self.training:
            self._follow(each.detach(), held if self.hold_out else torch.ones_like(held))
        learnt = (~held).float()
        probed = ((each * learnt).sum(dim=1) / learnt.sum().clamp(min=1)).sum()
        top1 = torch.stack(correct).float().mean(dim=1)
        metrics = {f"top1_layer_{i}": value for i, value in enumerate(top1)}
        metrics |= {"top1": top1[self.layer], "probes": probed.detach() / len(self.probes)}
        if loss is None:
            return Loss(probed, metrics)
        return Loss(loss.total + probed, {**loss.metrics, "learner": loss.total.detach(), **metrics})

    def _learn(self, batch: Batch) -> tuple[Loss | None, tuple[Tensor, ...]]:
        """The learner's loss, unless it is frozen, and every layer's tokens."""
        if self.frozen and "video" in batch:
            with torch.no_grad():
                return None, self.encoder(batch["video"], layers=True).layers
        if isinstance(self.learner, LayeredLearner):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                loss, layers = self.learner.loss_and_layers(batch)
            return None if self.frozen else loss, layers
        if self.frozen:
            raise UserError(f"{type(self.encoder).__name__} reads videos, and the batches have none")
        loss = self.learner(batch)
        with torch.no_grad():
            return loss, self.encoder(batch["video"], layers=True).layers

    def _held_out(self, index: Tensor) -> Tensor:
        """Which samples no probe learns from, ``B``: every fifth in the order of the data, so of every class."""
        if not self.hold_out:
            return torch.zeros_like(index, dtype=torch.bool)
        return index % self.hold_out == self.hold_out - 1

    @torch.no_grad()
    def _follow(self, nats: Tensor, counted: Tensor) -> None:
        """Update each layer's loss on held-out samples by that of a batch (``L B``), if it has some."""
        count = counted.sum()
        mean = (nats * counted).sum(dim=1) / count.clamp(min=1)
        # All begin at zero, and so are too small by the same factor for a while.
        self.held_out_nats.lerp_(mean.to(self.held_out_nats.dtype), SMOOTHING * (count > 0).float())

    @property
    def layer(self) -> Tensor:
        """Index of the layer that classifies, a scalar."""
        return self.held_out_nats.argmin()

    def classify_layers(self, video: Tensor) -> Tensor:
        """Logits of every layer's probe, ``L B K``, of ``B T C H W`` video."""
        layers = self.encoder(video, layers=True).layers
        return torch.stack([probe(tokens) for probe, tokens in zip(self.probes, layers, strict=True)])

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video, by the layer that did best on held-out training videos."""
        return self.classify_layers(video).index_select(0, self.layer[None])[0]

    def after_step(self, step: int) -> None:
        """The learner's own, unless it is frozen."""
        if not self.frozen:
            self.learner.after_step(step)

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """As the learner says of its own."""
        own, _, inner = name.partition(".")
        return self.learner.no_decay(inner, param) if own == "learner" else super().no_decay(name, param)

    def rate_of(self, name: str) -> float:
        """As the learner says of its own."""
        own, _, inner = name.partition(".")
        return self.learner.rate_of(inner) if own == "learner" else super().rate_of(name)

    def depth_of(self, name: str) -> int:
        """The learner's own layers; probes learn at the full rate."""
        own, _, inner = name.partition(".")
        if own == "learner":
            return self.learner.depth_of(inner)
        return 1 + max(self.learner.depth_of(inner) for inner, _ in self.learner.named_parameters())


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(AroundLearnerConfig):
    """A self-supervised method, and how its layers are probed."""

    on_another_run: ClassVar[bool] = True

    num_classes: Count
    """Number of classes. In training it comes from the data; a preset states its paper's."""
    frozen: bool = False
    """Whether the probes alone are trained."""
    hold_out: CountOrZero = 5
    """Distance in the order of the training videos from one that no probe learns from to the next; the layer that
    classifies is chosen on these. Zero for none: by the training loss."""

    def bind(self, info: DataInfo) -> Self:
        """Take the number of classes from the data, if it has any."""
        bound = super().bind(info)
        return replace(bound, num_classes=len(info.classes)) if info.classes else bound

    def goes_on_learning(self) -> str | None:
        """See :meth:`AroundLearnerConfig.goes_on_learning`."""
        return None if self.frozen else "set objective.frozen"

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """What is frozen of the learner: all of it, or what it freezes itself, such as a tokenizer."""
        if self.frozen:
            return {"learner": FrozenPart("init")}
        return {f"learner.{name}": FrozenPart("init") for name in self.learner.frozen_parts()}

    def build(self) -> Probe:
        """Build everything with fresh weights.

        Raises:
            UserError: the learner has no encoder, or not one that can be probed.
        """
        return Probe(self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels, beside VideoMAE; trains in seconds on two CPU cores."""
    learner = find("pretraining.videomae:tiny")
    return Run(
        data=replace(learner.data, synthetic=Motions(train_per_class=12, test_per_class=4), batch_size=16),
        objective=ProbeConfig(learner=learner.objective, num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100), clip_grad=None),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def tiny_toto() -> Run:
    """The same beside Toto, on motions at 32 x 32 pixels."""
    learner, run = find("pretraining.toto:tiny"), tiny()
    return replace(run, data=learner.data, objective=replace(run.objective, learner=learner.objective))


def _in1k(size: str) -> Run:
    """Images of 32 x 32 codes, with the base of rotary embeddings that the paper raises for them."""
    learner = replace(find(f"pretraining.toto:{size}").objective, num_frames=1, size=256, rope_base=50_000.0)
    return Run(
        data=Data(
            clip=Clip(num_frames=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=1024,
            num_workers=10,
        ),
        objective=ProbeConfig(learner=learner, num_classes=1000),
        optim=AdamW(
            lr=6e-5, betas=(0.9, 0.95), weight_decay=0.1, layer_decay=0.9, schedule=Cosine(warmup=0.05, final=0.0)
        ),
        train=Loop(length=Epochs(90), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(size: str) -> Run:
    """Clips of 16 frames, every fourth, of 16 x 16 codes; ten clips and three crops in evaluation, as SlowFast."""
    run = _in1k(size)
    clip = Clip(num_frames=16, stride=4, size=128, short_side=(128, 128))
    return replace(
        run,
        data=replace(run.data, clip=clip, batch_size=256),
        objective=ProbeConfig(learner=find(f"pretraining.toto:{size}").objective, num_classes=400),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def toto_base_in1k() -> Run:
    """Toto-base on ImageNet-1k."""
    return _in1k("base")


def toto_large_in1k() -> Run:
    """Toto-large on ImageNet-1k."""
    return _in1k("large")


def toto_1b_in1k() -> Run:
    """Toto-1b on ImageNet-1k."""
    return _in1k("one_b")


def toto_base_k400() -> Run:
    """Toto-base on Kinetics-400."""
    return _k400("base")


def toto_large_k400() -> Run:
    """Toto-large on Kinetics-400."""
    return _k400("large")


def toto_1b_k400() -> Run:
    """Toto-1b on Kinetics-400."""
    return _k400("one_b")
