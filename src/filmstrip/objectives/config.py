"""The base of every method's configuration, and that of low-rank adaptation."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, cast

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.data.config import Clip, DataInfo
from filmstrip.protocols import Objective


class FrozenPart(NamedTuple):
    """A part of an objective that is never trained, and whose weights come from elsewhere."""

    setting: str
    """The setting that says where from: ``init``, or one of the objective, such as ``objective.tokenizer_run``."""
    only_training: bool = False
    """Whether using the trained objective does without it."""


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Low-rank adaptation (Hu et al. 2022) in place of training the weights of linear layers."""

    rank: Count = 8
    """Rank of the product that is learnt."""
    alpha: Rate = 16.0
    """Factor of the product, in multiples of one over the rank."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate of the product's input."""
    layers: tuple[str, ...] = ()
    """Ends of the names of linear layers in the adapted part that learn a product, such as ``qkv`` or ``mlp.fc1``; by
    default all of them."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What a system trains. Subclasses hold the hyper-parameters and build the module."""

    on_another_run: ClassVar[bool] = False
    """Whether the method is meant for what another run learnt (``init``): comparisons of methods leave it out."""

    has_language: ClassVar[bool] = False
    """Whether its encoder and its language model can come from other runs (:mod:`filmstrip.runs.language`)."""

    continues_text: ClassVar[bool] = False
    """Whether it is a language model of text alone, which continues texts."""

    has_hub_sizes: ClassVar[bool] = False
    """Whether a model in the Hub's layout can say how large all its networks are (:meth:`of_hub`)."""

    def of_hub(
        self, config: Mapping[str, Any], statistics: Mapping[str, Any] | None, source: str
    ) -> tuple[ObjectiveConfig, int]:
        """This method with the sizes of a model by its ``config.json``, and the height and width of its frames.

        ``statistics`` are those of pixels, none if the model does not state them.

        Raises:
            UserError: the model is of another kind.
        """
        raise TypeError(f"{type(self).__name__} does not define of_hub()")

    has_pipeline: ClassVar[bool] = False
    """Whether it can begin with a published model of ``diffusers`` of several parts (:meth:`of_pipeline`)."""

    def of_pipeline(
        self, network: Mapping[str, Any], scheduler: Mapping[str, Any] | None, source: str
    ) -> ObjectiveConfig:
        """This method with the sizes of a published network, by its ``config.json``, and the noise of its scheduler,
        where there is one.

        Raises:
            UserError: either is of another kind.
        """
        raise TypeError(f"{type(self).__name__} does not define of_pipeline()")

    has_text_run: ClassVar[bool] = False
    """Whether a setting ``text_run`` names a model of text in the Hub's layout, as which the tower of texts begins
    (:mod:`filmstrip.runs.text_towers`)."""

    def with_text_of_hub(self, config: Mapping[str, Any], source: str) -> ObjectiveConfig:
        """This method with a tower of texts that a ``config.json`` describes.

        Raises:
            UserError: it describes another kind of model.
        """
        raise TypeError(f"{type(self).__name__} does not define with_text_of_hub()")

    def bind(self, info: DataInfo) -> ObjectiveConfig:
        """Fill in what only the data can tell, such as the number of classes; by default nothing."""
        return self

    def for_clip(self, clip: Clip) -> ObjectiveConfig:
        """This method for clips of another length and size; by default its ``num_frames`` and ``size``, if any."""
        sizes = {"num_frames": clip.num_frames, "size": clip.size}
        told = {field.name: sizes[field.name] for field in dataclasses.fields(self) if field.name in sizes}
        return dataclasses.replace(self, **told)

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """Frozen parts whose weights a setting names, by their names in the objective; by default none.

        Where the setting names something, they are kept by reference and fingerprint, never copied into the run.
        """
        return {}

    def needs_init(self) -> str | None:
        """Why the method cannot be trained where no ``init`` is named, as a message; by default it can."""
        return None

    def build(self) -> Objective:
        """Build the module, with fresh weights."""
        raise TypeError(f"{type(self).__name__} does not define build()")


@dataclass(frozen=True, kw_only=True)
class FrozenNetworksConfig(ObjectiveConfig):
    """A method with frozen networks, each of which may come from a run of its own.

    A network called ``x`` is a field ``x`` with its configuration, a field ``x_run`` that says where its weights come
    from, and a part of the objective (``part_of``). A field ``untrained_encoders``, named after the kind of network,
    allows random weights.
    """

    network_kind: ClassVar[str] = "encoder"
    """Name of such a network in messages and in the switch."""
    only_training: ClassVar[bool] = False
    """Whether using the trained objective does without these networks."""
    takes_towers: ClassVar[bool] = False
    """Whether the networks are models of video and text, in two towers (``of_towers``), instead of encoders."""

    def frozen_networks(self) -> tuple[str, ...]:
        """Names of the networks that the method uses."""
        raise TypeError(f"{type(self).__name__} does not define frozen_networks()")

    def part_of(self, name: str) -> str:
        """The name of a network among the objective's parts."""
        return name

    def of_towers(self, vision: Any, text: Any) -> ObjectiveConfig:
        """The configuration of a network whose towers have these architectures, where such networks are taken."""
        raise TypeError(f"{type(self).__name__} takes no networks of two towers")

    def network_run(self, name: str) -> str | None:
        """The run folder, or the model of the Hub or in its layout, that a network comes from."""
        return cast("str | None", getattr(self, f"{name}_run"))

    def may_be_untrained(self) -> bool:
        """Whether networks may have random weights where no run is named."""
        return bool(getattr(self, f"untrained_{self.network_kind}s"))

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """These networks."""
        return {
            self.part_of(name): FrozenPart(f"objective.{name}_run", self.only_training)
            for name in self.frozen_networks()
        }


@dataclass(frozen=True, kw_only=True)
class AroundLearnerConfig(ObjectiveConfig):
    """A method around another one, whose encoder it uses."""

    learner: ObjectiveConfig
    """Method that has the encoder; on the command line a run or a model given as ``--init`` replaces it by its own
    where their sizes differ."""

    def bind(self, info: DataInfo) -> Self:
        """Tell the learner of the data."""
        return dataclasses.replace(self, learner=self.learner.bind(info))

    def for_clip(self, clip: Clip) -> Self:
        """The learner for clips of another length and size."""
        return dataclasses.replace(self, learner=self.learner.for_clip(clip))

    def goes_on_learning(self) -> str | None:
        """How to stop the learner's learning by its own loss, as a message; none where it does not learn so."""
        raise TypeError(f"{type(self).__name__} does not define goes_on_learning()")

    def with_head_of_hub(self, config: Mapping[str, Any], typed: Collection[str] = ()) -> Self:
        """This method with the kind of head that a model in the Hub's layout has, by its ``config.json``; by default
        its own."""
        return self

    def with_learner(self, learner: ObjectiveConfig, typed: Collection[str] = ()) -> Self:
        """This method around another learner; ``typed`` are the dotted names of settings that a person gave."""
        return dataclasses.replace(self, learner=learner)
