"""BLIP-2's first stage in the layout of ``transformers``: the names of ``Blip2ForImageTextRetrieval``, and back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from filmstrip.models import query_transformer as queries
from filmstrip.models.blip_layout import OURS_ALONE, VISION, shaped_as_ours, shaped_as_theirs, unfused
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import pair

_MAP = KeyMap(
    (
        *VISION,
        ("query_tokens", "bridge.queries"),
        ("embeddings.word_embeddings.weight", "bridge.embed.weight"),
        ("embeddings.position_embeddings.weight", "bridge.pos_embed"),
        *((f"qformer.{theirs}", f"bridge.{ours}") for theirs, ours in queries.BLIP2.pairs),
        *pair("vision_projection", "video_head"),
        *pair("text_projection", "text_head"),
        *pair("itm_head", "match_head"),
    ),
    ours_alone=(*OURS_ALONE, r"words\..*", r"log_scale"),
)


def from_retrieval(theirs: Mapping[str, Tensor]) -> Weights:
    """The weights of a :class:`Blip2` from the state of a ``Blip2ForImageTextRetrieval``, which writes no captions.

    Raises:
        UserError: it has a name that no such model has.
    """
    return shaped_as_ours(_MAP.ours(queries.fused(theirs)))


def to_retrieval(ours: Mapping[str, Tensor], patch_size: int) -> Weights:
    """The inverse of :func:`from_retrieval`; what ``transformers`` has no place for is left out."""
    return unfused(_MAP.theirs(shaped_as_theirs(ours, patch_size)))
