"""A query transformer as the connector of visual tokens to a language model: BLIP-2's, InstructBLIP's, Video-LLaMA's.

A norm of the frozen encoder's tokens, queries that read them, and a linear layer to the language model.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.models.query_transformer import QueryTransformer, QueryTransformerConfig
from filmstrip.nn.linear import Linear
from filmstrip.protocols import Grid
from filmstrip.weights.keymap import Weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QueryConnectorConfig(ConnectorConfig):
    """A query transformer and a linear layer."""

    queries: QueryTransformerConfig
    """Query transformer; the width of its context is the encoder's."""
    per_frame: bool = False
    """Whether queries read each time step alone, which gives as many tokens for each, instead of the whole clip."""

    def build(self, visual_width: int, width: int) -> QueryConnector:
        """Build the connector with fresh weights."""
        return QueryConnector(self, visual_width, width)


class QueryReader(nn.Module):
    """Queries' view of an encoder's tokens: a norm, and a query transformer, which text may join."""

    def __init__(self, config: QueryTransformerConfig, visual_width: int) -> None:
        super().__init__()
        self.visual_norm = nn.LayerNorm(visual_width)
        self.bridge = QueryTransformer(replace(config, context_width=visual_width, text_output=False))

    def forward(self, tokens: Tensor, text: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """``B M C`` to ``B K D``; ``text`` (``B L`` ids) stands beside the queries where it is ``valid``."""
        return self.bridge(self.visual_norm(tokens), text, valid=valid, sees="together").queries

    def of_steps(self, tokens: Tensor, steps: int, text: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """The same for each of ``steps`` time steps alone, with the same text: ``B steps*K D``."""
        if text is not None and valid is not None:
            text, valid = (repeat(x, "b l -> (b t) l", t=steps) for x in (text, valid))
        queries = self(rearrange(tokens, "b (t m) c -> (b t) m c", t=steps), text, valid)
        return rearrange(queries, "(b t) k d -> b (t k) d", t=steps)


class QueryConnector(Connector):
    """A query transformer and a linear layer: ``K`` tokens of a clip, or of each of its time steps."""

    with_summary = True

    def __init__(self, config: QueryConnectorConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.per_frame = config.per_frame
        self.num_queries = config.queries.num_queries
        self.reader = QueryReader(config.queries, visual_width)
        self.project = Linear(config.queries.width, width)

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip whose visual tokens lie on a grid."""
        return self.num_queries * (grid.t if self.per_frame else 1)

    def forward(self, tokens: Tensor, grid: Grid, text: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Tokens ``B N D`` of the language model; ``text`` (``B L`` ids, where ``valid``) says what is asked."""
        steps = grid.t if self.per_frame else 1
        return self.project(self.reader.of_steps(tokens, steps, text, valid))


def begun_from(other: nn.Module, own: nn.Module, reader: str) -> Weights | None:
    """Weights of ``own`` from another method's queries: its encoder, norm and query transformer, by names in ``own``.

    ``reader`` is the name of a :class:`QueryReader` in ``own``. What has another shape, as the embedding of another
    vocabulary, is left out. None if the other has no queries.
    """
    bridge, norm, encoder = (getattr(other, name, None) for name in ("bridge", "visual_norm", "encoder"))
    if not isinstance(bridge, QueryTransformer) or norm is None or encoder is None:
        return None
    parts = {"encoder": encoder, f"{reader}.visual_norm": norm, f"{reader}.bridge": bridge}
    given = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    wanted = own.state_dict()
    known = {name: value for name, value in given.items() if name in wanted}
    other_shapes = [name for name, value in known.items() if value.shape != wanted[name].shape]
    if other_shapes:
        log.warning(
            "these weights have another shape in the run that is started from, and begin anew: %s", other_shapes
        )
    return {name: value for name, value in known.items() if name not in other_shapes}
