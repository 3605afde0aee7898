"""An encoder's layers, a pyramid of their maps, proposed boxes, and what is said of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from torch import Tensor

from filmstrip.bounds import Bounds, Count, Rate, Share, Weight
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.contacts import ContactInfo
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.protocols import (
    Batch,
    EncoderModule,
    Features,
    LayeredLearner,
    Loss,
    NextContacts,
    Objective,
    TokenizerModule,
    find_tokenizer,
)
from filmstrip.systems.detection.next_contact.heads import ContactHead
from filmstrip.systems.detection.next_contact.pyramid import LEVELS, LayerMaps, Proposals, Pyramid


class NextContact(Objective):
    """A detector of what will be touched next, on five layers of an encoder; a
    :class:`~filmstrip.protocols.ContactForecaster`."""

    def __init__(self, config: NextContactConfig) -> None:
        super().__init__()
        learner = config.learner.build()
        own = encoder_of(learner)
        depth = getattr(own, "depth", 0)
        if not config.layers or max(config.layers) > depth:
            raise UserError(
                f"objective.layers are five of the {depth} layers of {type(config.learner).__name__}, "
                f"not {config.layers}"
            )
        self.config = config
        self.learns = config.learner_weight > 0
        if self.learns and not isinstance(learner, LayeredLearner):
            raise UserError(
                f"{type(learner).__name__} does not tell its layers with its loss: set objective.learner_weight to 0"
            )
        if self.learns and not hasattr(own, "grid"):
            raise UserError(f"{type(own).__name__} has no grid of its own: set objective.learner_weight to 0")
        self.learner = learner if self.learns else own
        if config.frozen:
            own.requires_grad_(False)
        self.maps = LayerMaps(own.width, config.channels)
        self.pyramid = Pyramid([config.channels] * LEVELS, config.channels)
        self.proposals = Proposals(
            config.channels,
            anchor_strides=config.anchor_strides,
            candidates=config.candidates,
            proposals=config.proposals,
            samples=config.samples,
        )
        self.head = ContactHead(
            config.channels,
            config.head_width,
            num_nouns=config.num_nouns,
            num_verbs=config.num_verbs,
            box_strides=config.box_strides,
            samples=config.cell_samples,
            chosen=config.samples,
        )
        mine = ("video", "boxes", "is_object", "noun", "verb", "contact")
        self.requires = tuple(dict.fromkeys((*(learner.requires if self.learns else ()), *mine)))
        self.train(self.training)

    @property
    def encoder(self) -> EncoderModule:
        """The encoder, which the learner owns if there is one."""
        return encoder_of(self.learner) if self.learns else self.learner

    @property
    def tokenizer(self) -> TokenizerModule | None:
        """The encoder's tokenizer, if it has one."""
        return find_tokenizer(self.learner)

    def train(self, mode: bool = True) -> Self:
        """As any module, but a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.config.frozen:
            self.encoder.eval()
        return self

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the detector's six losses, weighted, and the encoder's own."""
        video, config = batch["video"], self.config
        size = (video.shape[3], video.shape[4])
        boxes = batch["boxes"].float() * torch.tensor([size[1], size[0]] * 2, device=video.device)
        own, features = self._learn(batch)
        maps = self.pyramid(self.maps(features))
        proposed = self.proposals(maps, size)
        objectness, shift = self.proposals.losses(*proposed, boxes, batch)
        chosen = self.head.choose(*self.proposals.propose(*proposed, size), boxes, batch)
        losses = self.head.losses(self.head(maps, chosen[0], size), chosen, boxes, batch)
        losses |= {"objectness": objectness, "proposed_box": shift}
        weights = {"noun": config.noun_weight, "verb": config.verb_weight, "seconds": config.seconds_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        metrics = {name: value.detach() for name, value in losses.items()}
        if own is not None:
            total = total + config.learner_weight * own
            metrics["learner"] = own.detach()
        return Loss(total, metrics)

    def _learn(self, batch: Batch) -> tuple[Tensor | None, list[Tensor]]:
        """The encoder's own loss, if it goes on learning by it, and the last frame's tokens of five layers."""
        if not self.learns:
            return None, self._last_frame(self._features(batch["video"]))
        assert isinstance(self.learner, LayeredLearner), "checked when it was built"
        loss, layers = self.learner.loss_and_layers(batch)
        return loss.total, self._last_frame(Features(layers[-1], self.encoder.grid, layers))

    def _features(self, video: Tensor) -> Features:
        """The encoder's, with all layers."""
        if not self.config.frozen:
            return self.encoder(video, layers=True)
        with torch.no_grad():
            return self.encoder(video, layers=True)

    def _last_frame(self, features: Features) -> list[Tensor]:
        """Tokens ``B h w D`` of the last frame, of the five layers.

        Those of the last layer come after the encoder's norm, unless it learns by its own loss, which tells layers
        alone.
        """
        layers = features.layers if self.learns else (*features.layers[:-1], features.tokens)
        _, h, w = features.grid
        return [layers[i - 1][:, -h * w :].unflatten(1, (h, w)) for i in self.config.layers]

    def next_contacts(self, video: Tensor) -> NextContacts:
        """The objects that will be touched next after ``B T C H W`` video."""
        size, config = (video.shape[3], video.shape[4]), self.config
        maps = self.pyramid(self.maps(self._last_frame(self._features(video))))
        boxes, there = self.proposals.propose(*self.proposals(maps, size), size)
        return self.head.contacts(
            self.head(maps, boxes, size),
            boxes,
            there,
            size,
            min_score=config.min_score,
            candidates=config.candidates,
            count=config.contacts,
        )

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; everything else comes after its last."""
        own, _, inner = name.partition(".")
        return self.learner.depth_of(inner) if own == "learner" else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class NextContactConfig(ObjectiveConfig):
    """An encoder and the detector on its layers."""

    learner: ObjectiveConfig
    """System whose encoder has layers of one width; on the command line a run given as ``--init`` replaces it by
    its own where their sizes differ."""
    layers: tuple[Count, ...]
    """Numbers of five of the encoder's layers, from one: the first makes the finest map."""
    num_nouns: Count
    """Number of classes of objects. In training it comes from the data; a preset states its paper's."""
    num_verbs: Count
    """Number of classes of actions, as above."""
    frozen: bool = False
    """Whether the encoder is not trained."""
    learner_weight: Weight = 0.0
    """Weight of the encoder's own loss on the same clips; zero trains it by the detector's alone."""
    channels: Count = 256
    """Number of channels of the pyramid."""
    head_width: Count = 1024
    """Width of a box's features."""
    anchor_strides: Rate = 8.0
    """Side of a level's anchors, in strides of its map."""
    box_strides: Rate = 14.0
    """Smallest side of the boxes that a level serves, in strides of its map; the finest serves all smaller ones."""
    cell_samples: Count | None = None
    """Samples along each side of a cell of a box; none for as many as the positions that it covers."""
    candidates: Count = 1000
    """Maximum number of boxes of a level, and of contacts, among which overlapping ones are suppressed."""
    proposals: Count = 1000
    """Maximum number of boxes that are proposed for a clip."""
    samples: Count = 256
    """Number of anchors, and of proposed boxes, of a clip from which is learnt."""
    noun_weight: Weight = 1.0
    """Weight of the loss of nouns."""
    verb_weight: Weight = 0.1
    """Weight of the loss of verbs."""
    seconds_weight: Weight = 0.5
    """Weight of the error of seconds to contact."""
    min_score: Share = 0.05
    """Minimum score of a contact."""
    contacts: Annotated[int, Bounds(min=1, max=1000)] = 100
    """Maximum number of contacts of a clip."""

    def bind(self, info: DataInfo) -> Self:
        """Take the numbers of nouns and verbs from the data.

        Raises:
            UserError: the data have no annotated contacts.
        """
        if not isinstance(info, ContactInfo):
            raise UserError("the data have no contacts with objects: read such data (--data.reads contacts)")
        learner = self.learner.bind(info)
        return replace(self, learner=learner, num_nouns=len(info.classes), num_verbs=len(info.verbs))

    def for_clip(self, clip: Clip) -> Self:
        """The encoder for clips of another length and size."""
        return replace(self, backbone=self.learner.for_clip(clip))

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder, if it is not trained, or what it freezes itself, such as a tokenizer."""
        if self.frozen:
            return {"learner": FrozenPart("init")}
        inner = self.learner.frozen_parts()
        if not self.learner_weight:  # of the encoder alone
            inner = {
                name.removeprefix("encoder."): part for name, part in inner.items() if name.startswith("encoder.")
            }
        return {f"learner.{name}": FrozenPart("init") for name in inner}

    def build(self) -> NextContact:
        """Build the network with fresh weights.

        Raises:
            UserError: the backbone has no such layers, there are not five, or a frozen encoder is to learn.
        """
        if len(self.layers) != LEVELS:
            raise UserError(f"the pyramid has {LEVELS} levels, and objective.layers {len(self.layers)}")
        if self.frozen and self.learner_weight:
            raise UserError("a frozen encoder does not learn: set objective.learner_weight to 0")
        return NextContact(self)
