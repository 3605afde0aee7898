"""DETR's transformer for sequences, as moment retrieval uses it: positions are added to queries and keys alone.

Carion et al. 2020; for videos and sentences Lei et al. 2021 (Moment-DETR), of whose released code the layers keep the
names. Norms come after the residual sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, ShareBelowOne
from filmstrip.nn.attention import attend
from filmstrip.nn.positions import sincos
from filmstrip.protocols import Rules


@dataclass(frozen=True, kw_only=True)
class DetrArchitecture:
    """Sizes of a transformer that reads a video's features and a query's, and of what is in front of it."""

    feature_width: CountOrZero = 0
    """Channels of the video's features; by default from the data."""
    text_width: CountOrZero = 0
    """Channels of the query's features; by default from the data."""
    width: Count
    """Channels of a token."""
    num_heads: Count
    """Attention heads of a layer."""
    hidden: Count
    """Channels within feed-forward networks."""
    encoder_depth: Count
    """Number of layers of the encoder."""
    decoder_depth: Count
    """Number of layers of the decoder."""
    num_queries: Count
    """Number of learned queries of the decoder, each of which gives one moment."""
    num_projections: Count = 2
    """Number of linear layers between the features and the transformer."""
    input_dropout: ShareBelowOne = 0.0
    """Dropout rate of the features' projections."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate within the transformer, of attention weights too."""


class Projections(nn.Sequential):
    """Linear layers, each after a norm and dropout, with ReLU between them: ``... D -> ... width``."""

    def __init__(self, inputs: int, width: int, depth: int, dropout: float) -> None:
        widths = (inputs, *[width] * depth)
        super().__init__(*(Projection(a, b, dropout) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """Any number of positions."""
        for i, layer in enumerate(self):
            x = layer(x) if i == 0 else layer(x.relu())
        return x


class Projection(nn.Module):
    """A linear layer after a norm and dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``... inputs -> ... outputs``."""
        return self.linear(self.dropout(self.norm(x)))


class Head(nn.Module):
    """Linear layers with ReLU between them, applied to every token."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... outputs``."""
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(x.relu())
        return x


class DetrAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from three sequences; their weights lie in one."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.inputs = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """``B Q D`` queries attend to those of ``B K D`` keys that are ``valid`` (``B K`` bool)."""
        parts = zip((queries, keys, values), self.inputs.weight.chunk(3), self.inputs.bias.chunk(3))
        q, k, v = (rearrange(F.linear(*part), "b n (h d) -> b h n d", h=self.num_heads) for part in parts)
        allowed = None if valid is None else valid[:, None, None]
        if allowed is None:  # so that dropout has one path
            allowed = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool, device=k.device)
        attended = attend(q, k, v, allowed=allowed, dropout=self.dropout if self.training else 0.0)
        return self.out(rearrange(attended, "b h n d -> b n (h d)"))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network: ``B N D -> B N D``."""

    def __init__(self, config: DetrArchitecture, activation: nn.Module | None = None) -> None:
        super().__init__()
        width = config.width
        self.attention = DetrAttention(width, config.num_heads, config.dropout)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.hidden)
        self.activation = activation or nn.ReLU()
        self.fc2 = nn.Linear(config.hidden, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """Apply the layer; ``positions`` are as ``x``, ``valid`` is ``B N``."""
        placed = x + positions
        x = self.norm1(x + self.dropout(self.attention(placed, placed, x, valid)))
        inner = self.fc2(self.dropout(self.activation(self.fc1(x))))
        return self.norm2(x + self.dropout(inner))


class DecoderLayer(nn.Module):
    """Self-attention of learned queries, attention to the encoder's tokens, and a feed-forward network."""

    def __init__(self, config: DetrArchitecture) -> None:
        super().__init__()
        width = config.width
        self.attention = DetrAttention(width, config.num_heads, config.dropout)
        self.cross_attention = DetrAttention(width, config.num_heads, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.fc1 = nn.Linear(width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, query_positions: Tensor, memory: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """``B Q D -> B Q D``, from ``memory`` (``B N D``) at ``positions``."""
        placed = x + query_positions
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x)))
        attended = self.cross_attention(x + query_positions, memory + positions, memory, valid)
        x = self.norms[1](x + self.dropout(attended))
        inner = self.fc2(self.dropout(self.fc1(x).relu()))
        return self.norms[2](x + self.dropout(inner))


class DetrTransformer(nn.Module):
    """An encoder of tokens, and a decoder that starts from zeros at learned positions."""

    def __init__(self, config: DetrArchitecture) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_depth))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(config.width)
        spread(self)

    def forward(self, tokens: Tensor, positions: Tensor, valid: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """States of ``queries`` (``Q D``) after each layer, ``layers B Q D``, and the encoder's memory ``B N D``."""
        memory = tokens
        for layer in self.encoder:
            memory = layer(memory, positions, valid)
        places = queries.expand(tokens.shape[0], -1, -1)
        x, states = torch.zeros_like(places), []
        for layer in self.decoder:
            x = layer(x, places, memory, positions, valid)
            states.append(self.norm(x))
        return torch.stack(states), memory


def spread(module: nn.Module) -> None:
    """Draw every matrix of a module by Glorot's rule, as DETR does."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)


def present_to(length: Tensor, total: int) -> Tensor:
    """Whether each of ``total`` positions is one of the first ``length`` (``B``): ``B total`` bool."""
    return torch.arange(total, device=length.device) < length[:, None]


def relative_positions(valid: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions, ``B N width``, of which the last ``valid`` one (``B N``) is a full turn."""
    place = valid.cumsum(dim=1, dtype=torch.float32)
    return sincos(place / (place[:, -1:] + 1e-6) * 2 * math.pi, width)


def with_endpoints(features: Tensor, length: Tensor) -> Tensor:
    """Features ``B T D`` with the start and the end of each as shares of its video, ``B T D+2``.

    Hendricks et al. 2017 (temporal endpoint features).
    """
    place = torch.arange(features.shape[1], device=features.device, dtype=features.dtype)
    ends = torch.stack([place, place + 1], dim=-1) / length.to(features.dtype)[:, None, None]
    return torch.cat([features, ends], dim=-1)


PUBLISHED: Rules = (
    (r"^video\.(\d)\.norm\.", r"input_vid_proj.\1.LayerNorm."),
    (r"^video\.(\d)\.linear\.", r"input_vid_proj.\1.net.1."),
    (r"^text\.(\d)\.norm\.", r"input_txt_proj.\1.LayerNorm."),
    (r"^text\.(\d)\.linear\.", r"input_txt_proj.\1.net.1."),
    (r"^transformer\.norm\.", "transformer.decoder.norm."),
    (r"^transformer\.(en|de)coder\.(\d)", r"transformer.\1coder.layers.\2"),
    (r"\.attention\.inputs\.", ".self_attn.in_proj_"),
    (r"\.attention\.out\.", ".self_attn.out_proj."),
    (r"\.cross_attention\.inputs\.", ".multihead_attn.in_proj_"),
    (r"\.cross_attention\.out\.", ".multihead_attn.out_proj."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.norms\.2\.", ".norm3."),
    (r"\.fc(\d)\.", r".linear\1."),
    (r"^spans\.", "span_embed."),
    (r"^queries$", "query_embed.weight"),
)
"""Our names of projections, transformer and spans to those of Moment-DETR's released weights, and of its heirs'."""
