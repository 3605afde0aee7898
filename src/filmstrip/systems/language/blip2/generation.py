"""BLIP-2's second stage: what queries learnt to read becomes tokens in front of a frozen language model's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from filmstrip.models.query_connector import QueryConnectorConfig, begun_from
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig
from filmstrip.protocols import Objective


@dataclass(frozen=True, kw_only=True)
class Blip2LanguageConfig(VideoLanguageConfig):
    """A frozen encoder, queries and a linear layer that are trained, and a frozen language model."""

    connector: QueryConnectorConfig
    """Query transformer without text, and the layer to the language model."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""

    def build(self) -> Blip2Language:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, or nothing is trained.
        """
        return Blip2Language(self)


class Blip2Language(VideoLanguage):
    """A language model that reads queries; it starts from a run of the first stage (``--init``)."""

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder, its norm and the queries' side of the query transformer, of a first stage."""
        return begun_from(other, self, "connector.reader")
