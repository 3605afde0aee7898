"""A published encoder of text, T5's or UMT5's, as ``transformers`` has it: frozen, kept by reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class T5Architecture:
    """The sizes of an encoder; by default those of Flan-T5-XXL."""

    width: Count = 4096
    depth: Count = 24
    num_heads: Count = 64
    head_dim: Count = 64
    hidden: Count = 10240
    """Dimension within a feed-forward network."""
    feed_forward: Literal["gated-gelu", "relu"] = "gated-gelu"
    vocab_size: Count = 32128
    own_positions: bool = False
    """Whether each layer has relative positions of its own (UMT5), in place of the first one's for all."""

    @classmethod
    def of_hub(cls, config: Mapping[str, Any], source: str) -> Self:
        """The sizes that a ``config.json`` states.

        Raises:
            UserError: it describes another kind of model.
        """
        if (kind := config.get("model_type")) not in ("t5", "umt5"):
            raise UserError(f"{source} is a {kind}: texts are encoded by a T5 or UMT5 (such as google/flan-t5-xxl)")
        feed_forward = config.get("feed_forward_proj", "relu")
        if feed_forward not in ("gated-gelu", "relu"):
            raise UserError(f"{source} has the feed-forward network {feed_forward!r}: gated-gelu and relu are known")
        return cls(
            width=config["d_model"],
            depth=config["num_layers"],
            num_heads=config["num_heads"],
            head_dim=config["d_kv"],
            hidden=config["d_ff"],
            feed_forward=feed_forward,
            vocab_size=config["vocab_size"],
            own_positions=kind == "umt5",
        )


class FrozenT5(nn.Module):
    """The last layer's vectors of texts, without gradients; always in evaluation mode."""

    def __init__(self, config: T5Architecture) -> None:
        """Raises UserError: ``transformers`` is not installed."""
        super().__init__()
        try:
            import transformers
        except ImportError:
            raise UserError("a T5 needs transformers: pip install 'filmstrip[language]'") from None
        self.width = config.width
        kind = "UMT5" if config.own_positions else "T5"
        network = getattr(transformers, f"{kind}EncoderModel")(
            getattr(transformers, f"{kind}Config")(
                d_model=config.width,
                num_layers=config.depth,
                num_heads=config.num_heads,
                d_kv=config.head_dim,
                d_ff=config.hidden,
                feed_forward_proj=config.feed_forward,
                vocab_size=config.vocab_size,
                tie_word_embeddings=False,
            )
        )
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Does nothing: dropout stays off."""
        return self

    @torch.no_grad()
    def forward(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Vectors ``B L D`` of ids ``B L``, of which only the ``valid`` ones (``B L`` bool) are attended to."""
        return self.network(input_ids=ids, attention_mask=valid.long()).last_hidden_state

    @staticmethod
    def weights_of(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our names for the weights of a T5, without its decoder."""
        own = {k: v for k, v in theirs.items() if k == "shared.weight" or k.startswith("encoder.")}
        if "shared.weight" not in own and "encoder.embed_tokens.weight" in own:
            own["shared.weight"] = own["encoder.embed_tokens.weight"]
        own.setdefault("encoder.embed_tokens.weight", own.get("shared.weight", torch.empty(0)))
        return {f"network.{name}": tensor for name, tensor in own.items()}
