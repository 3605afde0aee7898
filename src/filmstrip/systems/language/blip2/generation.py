"""BLIP-2's second stage: what queries learnt to read becomes tokens in front of a frozen language model's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.blip_layout import config_of, from_hub, sizes_of, to_hub
from filmstrip.models.image_tower import ImageTower
from filmstrip.models.query_connector import QueryConnector, QueryConnectorConfig, begun_from
from filmstrip.models.query_transformer import BLIP2
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Objective
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class Blip2LanguageConfig(VideoLanguageConfig):
    """A frozen encoder, queries and a linear layer that are trained, and a frozen language model."""

    connector: QueryConnectorConfig
    """Query transformer without text, and the layer to the language model."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""

    hub_types: ClassVar[tuple[str, ...]] = ("blip-2",)

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of a ``Blip2ForConditionalGeneration``.

        Raises:
            UserError: its language model is of another family than LLaMA's.
        """
        sizes = sizes_of(config, preprocessing, source, reads_text=False)
        connector = replace(self.connector, queries=sizes.queries)
        encoder = ImageTowerConfig(**sizes.tower)
        return replace(self, encoder=encoder, layer=-1, connector=connector, decoder=sizes.decoder)

    def build(self) -> Blip2Language:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, or nothing is trained.
        """
        return Blip2Language(self)


class Blip2Language(VideoLanguage):
    """A language model that reads queries; it starts from a run of the first stage (``--init``)."""

    config: Blip2LanguageConfig
    connector: QueryConnector
    blocks_in_transformers = "language_model.model.layers"
    one_frame_in_transformers = True

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder, its norm and the queries' side of the query transformer, of a first stage."""
        return begun_from(other, self, "connector.reader")

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a ``Blip2ForConditionalGeneration`` with a LLaMA in it.

        Raises:
            UserError: a weight has no place here.
        """
        given = from_hub(theirs, self.decoder.config, BLIP2)
        return given | {name: x for name, x in self.state_dict().items() if ".normalise." in name}

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """A ``Blip2ForConditionalGeneration``.

        Raises:
            UserError: it has no such encoder, or the place of a visual is outside its vocabulary.
        """
        if not isinstance(self.encoder, ImageTower):
            raise UserError("transformers' BLIP-2 has EVA-CLIP's encoder: others cannot be written")
        decoder = self.decoder.config
        config = config_of(self.encoder, self.config.connector.queries, decoder) | {
            "model_type": "blip-2",
            "architectures": ["Blip2ForConditionalGeneration"],
            "image_token_index": self.place("<image>"),
        }
        return config, to_hub(self.state_dict(), decoder, BLIP2, self.encoder.patch_size[1])

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Normalised pixels of the first frame, and ids."""
        pixels = self.encoder.embed.normalise(video)[:, 0]
        return {"pixel_values": pixels, "input_ids": self.spread(text, self.connector.num_queries)}
