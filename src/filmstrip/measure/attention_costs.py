"""What each way to mix the tokens of a long sequence costs, for a model's own numbers.

Gu et al. 2023 ("A Unified View of Long-Sequence Models towards Modeling Million-Scale Dependencies") write them all
as one template: a token becomes a weighted sum of others. What differs is how many pairs of tokens have a weight, and
what has to be kept of those before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A sequence of tokens of a video or a text, and the layer that mixes them."""

    length: int
    """Number of tokens."""
    width: int
    """Channels of all heads of queries together."""
    kv_width: int
    """Channels of all heads of keys together; as many of values."""
    frame: int = 256
    """Number of tokens of a frame."""
    bytes_each: int = 2
    """Bytes of a value."""
    ranks: int = 64
    """Number of processes of a ring."""


class Mixing(NamedTuple):
    """One way to mix tokens: what a layer takes forward, projections left out."""

    name: str
    rule: str
    """Tokens that a token attends to, in words."""
    pairs: float
    """Pairs of tokens that have a weight."""
    operations: float
    """Floating-point operations; two for a multiply-add."""
    kept: float
    """Bytes kept of earlier tokens when tokens come one by one: keys and values, or a state."""
    saved: float
    """Bytes kept for the backward pass: queries, keys, values and outputs."""
    source: str


WINDOW = 4096
"""Tokens of a window (Mistral; Jiang et al. 2023)."""
STRIDE = 64
"""Tokens that a pooled key or value stands for: 1 x 8 x 8 in MViT's first stage (Fan et al. 2021)."""
MEMORY = (2, 16, 16)
"""Clips remembered, frames of a clip, and tokens that a remembered one stands for: 4 x 2 x 2 (Wu et al. 2022)."""
STATE = 64
"""Dimension of a channel's state (Gu et al. 2022, S4)."""
MERGED = 305 / 25_600
"""Share of the tokens that LongVLM merges a video's into (Weng et al. 2024)."""
DROPPED = (16 / 256, 0.25, 0.5)
"""HiCo (Li et al. 2025, InternVideo2.5): share of each frame's tokens after merging; share of layers that see all of
these; and share of these that the other layers see."""


def mixings(of: Sequence) -> list[Mixing]:
    """The ways to mix a sequence, each with what it costs a layer."""
    n, frame = of.length, min(of.frame, of.length)
    frames = n / frame
    window = min(WINDOW, n)
    clips, clip_frames, compressed = MEMORY
    clip = min(n, clip_frames * frame)
    share, whole, rest = DROPPED
    merged, dropped = n * MERGED, n * share

    def attention(
        name: str, rule: str, pairs: float, source: str, *, kept: float = n, tokens: float = n, parts: int = 1
    ) -> Mixing:
        channels = (2 * of.width + 2 * of.kv_width) * of.bytes_each
        return Mixing(
            name,
            rule,
            pairs / parts,
            4 * pairs * of.width / parts,
            2 * of.kv_width * of.bytes_each * kept / parts,
            channels * tokens / parts,
            source,
        )

    state = of.width * STATE
    return [
        attention("full", "all tokens", n * n, "Vaswani et al. 2017"),
        attention("causal", "all tokens before", _before(n), "Vaswani et al. 2017"),
        attention(
            "windowed", f"the latest {window:,}", _before(n) - _before(n - window), "Jiang et al. 2023", kept=window
        ),
        attention("block-causal", "all frames so far", _before(frames) * frame * frame, "Yan et al. 2023, TECO"),
        attention(
            "factorised",
            "its frame, and its place in all frames",
            n * (frame + frames),
            "Bertasius et al. 2021, TimeSformer",
        ),
        attention("pooled", f"means of {STRIDE}", n * n / STRIDE, "Fan et al. 2021, MViT", kept=n / STRIDE),
        attention(
            "memory",
            f"its clip, and {clips} before it, 1/{compressed} of their tokens",
            n * clip * (1 + clips / compressed),
            "Wu et al. 2022, MeMViT",
            kept=clip * (1 + clips / compressed),
        ),
        Mixing(
            "state space",
            f"a state of {STATE} a channel",
            0.0,
            # The recurrence: multiply the state, add the input, read it out.
            2.0 * 3 * n * state,
            state * of.bytes_each,
            2 * n * of.width * of.bytes_each,
            "Gu et al. 2022, S4",
        ),
        attention("ring", f"all before; 1 of {of.ranks} processes", _before(n), "Liu et al. 2023", parts=of.ranks),
        attention(
            "merged",
            f"all before, of {merged:,.0f}",
            _before(merged),
            "Weng et al. 2024, LongVLM",
            kept=merged,
            tokens=merged,
        ),
        attention(
            "dropped",
            f"all before, of {dropped:,.0f}, later {rest:.0%}",
            whole * _before(dropped) + (1 - whole) * _before(dropped * rest),
            "Li et al. 2025, InternVideo2.5",
            kept=dropped * (whole + (1 - whole) * rest),
            tokens=dropped * (whole + (1 - whole) * rest),
        ),
    ]


def _before(count: float) -> float:
    """Pairs of so many tokens in which the second is not behind the first."""
    return count * (count + 1) / 2


class Kernel(NamedTuple):
    """One way to compute the same attention on a GPU."""

    name: str
    memory: float
    """Bytes that it takes beside queries, keys, values and outputs, forward."""
    seconds: tuple[float, float]
    """Range of the seconds, forward."""
    blocks: int
    """Thread blocks that work at the same time, of one row."""


def kernels(of: Sequence, heads: int, *, rate: float, bandwidth: float, query_block: int = 128) -> list[Kernel]:
    """Causal attention of one layer and row by scores in memory, FlashAttention and FlashAttention-2.

    The shares of the ``rate`` of matrix products are those of Dao 2023 (FlashAttention-2), measured on an A100: 25 to
    40% for the first, 50 to 73% for the second, which also shares out the queries of a head among thread blocks, of
    ``query_block`` each, and not heads alone. Scores in memory are written and read by the product, the mask, the
    softmax and the second product.
    """
    n = of.length
    scores = n * n * heads * of.bytes_each
    operations = 4 * _before(n) * of.width
    through_memory = max(2 * operations / rate, 6 * scores / bandwidth)
    return [
        Kernel("scores in memory", 2.0 * scores, (through_memory, through_memory), heads * -(-n // query_block)),
        Kernel("FlashAttention", 4.0 * n * heads, (operations / (0.40 * rate), operations / (0.25 * rate)), heads),
        Kernel(
            "FlashAttention-2",
            4.0 * n * heads,
            (operations / (0.73 * rate), operations / (0.50 * rate)),
            heads * -(-n // query_block),
        ),
    ]
