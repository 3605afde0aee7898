"""An encoder's layers, a pyramid of their maps, proposed boxes, and what is said of these."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from torch import Tensor

from filmstrip.bounds import Bounds, Count, Rate, Share, Weight
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.contacts import ContactInfo
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.on_encoder import OnEncoder, OnEncoderConfig
from filmstrip.protocols import Batch, Features, Loss, NextContacts
from filmstrip.systems.detection.next_contact.heads import ContactHead
from filmstrip.systems.detection.next_contact.pyramid import LEVELS, LayerMaps, Proposals, Pyramid


class NextContact(OnEncoder):
    """A detector of what will be touched next, on five layers of an encoder; a
    :class:`~filmstrip.protocols.ContactForecaster`."""

    def __init__(self, config: NextContactConfig) -> None:
        super().__init__(config)
        own = self.encoder
        if max(config.layers) > own.depth:
            raise UserError(
                f"objective.layers are five of the {own.depth} layers of {type(config.learner).__name__}, "
                f"not {config.layers}"
            )
        self.config = config
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
        self.requires = self.needs("video", "boxes", "is_object", "noun", "verb", "contact")
        self.train(self.training)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the detector's six losses, weighted, and the encoder's own."""
        video, config = batch["video"], self.config
        size = (video.shape[3], video.shape[4])
        boxes = batch["boxes"].float() * torch.tensor([size[1], size[0]] * 2, device=video.device)
        own, features = self.features(batch)
        maps = self.pyramid(self.maps(self._last_frame(features)))
        proposed = self.proposals(maps, size)
        objectness, shift = self.proposals.losses(*proposed, boxes, batch)
        chosen = self.head.choose(*self.proposals.propose(*proposed, size), boxes, batch)
        losses = self.head.losses(self.head(maps, chosen[0], size), chosen, boxes, batch)
        losses |= {"objectness": objectness, "proposed_box": shift}
        weights = {"noun": config.noun_weight, "verb": config.verb_weight, "seconds": config.seconds_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        metrics = {name: value.detach() for name, value in losses.items()}
        if own is not None:
            total = total + config.learner_weight * own.total
            metrics["learner"] = own.total.detach()
        return Loss(total, metrics)

    def _last_frame(self, features: Features) -> list[Tensor]:
        """Tokens ``B h w D`` of the last frame, of the five layers."""
        _, h, w = features.grid
        return [features.layers[i - 1][:, -h * w :].unflatten(1, (h, w)) for i in self.config.layers]

    def next_contacts(self, video: Tensor) -> NextContacts:
        """The objects that will be touched next after ``B T C H W`` video."""
        size, config = (video.shape[3], video.shape[4]), self.config
        maps = self.pyramid(self.maps(self._last_frame(self.features_of(video))))
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


@dataclass(frozen=True, kw_only=True)
class NextContactConfig(OnEncoderConfig):
    """An encoder and the detector on its layers."""

    layers: tuple[Count, ...]
    """Numbers of five of the encoder's layers, from one: the first makes the finest map."""
    num_nouns: Count
    """Number of classes of objects. In training it comes from the data; a preset states its paper's."""
    num_verbs: Count
    """Number of classes of actions, as above."""
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
        return replace(super().bind(info), num_nouns=len(info.classes), num_verbs=len(info.verbs))

    def with_learner(self, learner: ObjectiveConfig, typed: Collection[str] = ()) -> Self:
        """The detector on another encoder; of one with more or fewer layers it reads five that are evenly spaced,
        unless ``typed`` says which."""
        with torch.device("meta"):
            before, depth = (getattr(encoder_of(c.build()), "depth", 0) for c in (self.learner, learner))
        if depth in (0, before) or "objective.layers" in typed:
            return super().with_learner(learner)
        return replace(self, learner=learner, layers=evenly_spaced(depth))

    def build(self) -> NextContact:
        """Build the network with fresh weights.

        Raises:
            UserError: the encoder has no such layers, there are not five, or a frozen one is to learn.
        """
        if len(self.layers) != LEVELS:
            raise UserError(f"the pyramid has {LEVELS} levels, and objective.layers {len(self.layers)}")
        return NextContact(self)


def evenly_spaced(depth: int) -> tuple[int, ...]:
    """Numbers of five of so many layers, from one, the last one among them."""
    return tuple(max(1, round(level * depth / LEVELS)) for level in range(1, LEVELS + 1))
