"""InternVideo2.5's compression of visual tokens and the language model that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.errors import UserError
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.nn.linear import Linear
from filmstrip.nn.sampling import Sampling
from filmstrip.nn.token_merging import merged
from filmstrip.objectives.language import VideoLanguage, VideoLanguageConfig
from filmstrip.protocols import Grid
from filmstrip.systems.language.internvideo2_5.dropping import Dropping, DroppingDecoder


@dataclass(frozen=True, kw_only=True)
class CompressionConfig(ConnectorConfig):
    """A few tokens for some time steps together, and an MLP of two layers."""

    steps: Count = 4
    """Number of time steps whose tokens are compressed together."""
    per_step: Count = 16
    """Number of tokens that are left for each of them."""
    num_heads: Count = 16
    """Number of the encoder's heads, of whose mean two tokens' similarity is."""
    how: Literal["merged", "pooled", "strided"] = "merged"
    """Tokens that are left: the similar ones merged, averages over equal parts of a time step's tokens, or evenly
    spaced ones."""

    def build(self, visual_width: int, width: int) -> Compression:
        """Build the connector with fresh weights."""
        return Compression(self, visual_width, width)


class Compression(Connector):
    """Merges tokens of some time steps at a time, then maps each to the language model.

    Of a clip whose time steps are no multiple of these, the last ones are compressed together, into as many for each.
    """

    def __init__(self, config: CompressionConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(Linear(visual_width, width), nn.GELU(), Linear(width, width))

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        return grid.t * min(self.config.per_step, grid.h * grid.w)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B M C``."""
        steps, area = self.config.steps, grid.h * grid.w
        whole = grid.t // steps * steps
        parts = []
        if whole:
            groups = rearrange(tokens[:, : whole * area], "b (g m) c -> (b g) m c", m=steps * area)
            parts.append(rearrange(self._compressed(groups, steps), "(b g) n c -> b (g n) c", b=len(tokens)))
        if whole < grid.t:
            parts.append(self._compressed(tokens[:, whole * area :], grid.t - whole))
        return self.layers(torch.cat(parts, dim=1))

    def _compressed(self, tokens: Tensor, steps: int) -> Tensor:
        """``B M C`` of so many time steps to ``B N C``."""
        config = self.config
        count = steps * config.per_step
        if tokens.shape[1] <= count:
            return tokens
        if config.how == "merged":
            return merged(tokens, count, num_heads=config.num_heads).tokens
        if config.how == "strided":
            return tokens[:, torch.linspace(0, tokens.shape[1] - 1, count, device=tokens.device).long()]
        each = rearrange(tokens, "b (t m) c -> (b t) c m", t=steps)
        return rearrange(F.adaptive_avg_pool1d(each, config.per_step), "(b t) c n -> b (t n) c", t=steps)


@dataclass(frozen=True, kw_only=True)
class InternVideo25Config(VideoLanguageConfig):
    """An encoder, compression, and a language model that drops visual tokens."""

    connector: CompressionConfig = field(default_factory=CompressionConfig)
    """Compression between the encoder and the language model."""
    dropping: Dropping | None = field(default_factory=Dropping)
    """Visual tokens that are dropped in the language model; none for no dropping."""

    def build(self) -> InternVideo25:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, dropping does not fit the language model, it is both
                trained and adapted, or nothing is trained.
        """
        return InternVideo25(self)

    def built_parts(self) -> dict[str, Any]:
        """The parts with fresh weights.

        Raises:
            UserError: as of :meth:`build`.
        """
        parts = super().built_parts()
        if self.dropping is not None:
            parts["decoder"] = DroppingDecoder(self.decoder, self.dropping)
        return parts


class InternVideo25(VideoLanguage):
    """A language model that reads a few tokens of each frame and drops most of them on the way."""

    sees_several = False
    takes_packed = False

    def options(self, visual: Tensor, is_visual: Tensor, asks: Tensor) -> dict[str, Any]:
        """Which tokens may be dropped: all visual ones but the last of each row, and padding where there are none."""
        count = visual.shape[1] - 1
        if not isinstance(self.decoder, DroppingDecoder) or count < 1:
            return {}
        before_another = is_visual & F.pad(is_visual[:, 1:], (0, 1))
        at_the_end = torch.arange(is_visual.shape[1], device=is_visual.device) >= is_visual.shape[1] - count
        may_go = torch.where(is_visual.any(dim=1, keepdim=True), before_another, at_the_end)
        return {"visual": may_go, "count": count, "asks": asks}

    def continued(
        self, visual: Tensor, text: Tensor, text_length: Tensor, uniform: Tensor, sampling: Sampling
    ) -> Iterator[Tensor]:
        """The ids after a prompt, as of any model that sees.

        Raises:
            UserError: a prompt has no place of a visual.
        """
        if not torch.isin(text, self.placeholders).any(dim=1).all():
            raise UserError(
                "a question has no place of a video (<video>), whose tokens this model drops: give it one"
            )
        yield from super().continued(visual, text, text_length, uniform, sampling)
