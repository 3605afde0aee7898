"""A structured state-space layer (S4), and a stack of them over those tokens of a long video that are selected.

Gu et al. 2022, "Efficiently Modeling Long Sequences with Structured State Spaces": a linear recurrence of a few
numbers for each channel, whose matrix is normal plus low-rank, computed as one convolution over the whole sequence.
The stack is that of Islam & Bertasius 2022 (ViS4mer), which halves length and width from layer to layer. The
selection is that of Wang et al. 2023 ("Selective Structured State-Spaces for Long-Form Video Understanding", S5): a
small network reads what a slowly moving copy of the first layer makes of all tokens, and names those that are read.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, PositiveShare, Share, ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.models.video_transformer import FrameTransformer, TransformerArchitecture
from filmstrip.nn.patches import take
from filmstrip.protocols import Features, Grid
from filmstrip.randomness import uniform

Selection = Literal["learned", "random", "none"]
Pair = tuple[Tensor, Tensor]
"""Real and imaginary part of complex numbers: formats of exported networks have no complex tensors."""


def hippo(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """Poles, input and low-rank vectors of the scaled Legendre measure (HiPPO-LegS): ``state / 2``, complex128.

    The matrix is unitarily equivalent to ``diag(poles) - low_rank low_rank*``; of conjugate pairs, those with
    positive imaginary parts are returned, in ascending order.
    """
    n = torch.arange(state, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    matrix = -(root[:, None] * root).tril(-1) - torch.diag(n + 1)
    low_rank = (n + 0.5).sqrt()
    skew = matrix + low_rank[:, None] * low_rank + 0.5 * torch.eye(state, dtype=torch.float64)
    frequencies, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    frequencies, vectors = frequencies[state // 2 :], vectors[:, state // 2 :]
    basis = vectors.conj().T
    return -0.5 + 1j * frequencies, basis @ root.to(basis.dtype), basis @ low_rank.to(basis.dtype)


def _times(x: Pair, y: Pair) -> Pair:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _over(x: Pair, y: Pair) -> Pair:
    return _scale(_times(x, (y[0], -y[1])), 1 / (y[0].square() + y[1].square()))


def _minus(x: Pair, y: Pair) -> Pair:
    return x[0] - y[0], x[1] - y[1]


def _scale(x: Pair, factor: Tensor | float) -> Pair:
    return x[0] * factor, x[1] * factor


class S4(nn.Module):
    """A state space of its own for each channel, a GELU, and a linear layer over channels: ``B L D -> B L D``.

    Sequences may be shorter than ``length``. Complex parameters are pairs of real ones in a last axis.
    """

    def __init__(self, width: int, length: int, *, state: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.length = length
        poles, inputs, low_rank = (x.to(torch.complex64) for x in hippo(state))
        # Time steps of 0.001 to 0.1, evenly spread over their logarithms, as published.
        low, high = math.log(0.001), math.log(0.1)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(width))
        self.poles = nn.Parameter(torch.view_as_real(poles).clone())
        vectors = torch.stack([inputs, low_rank]).expand(width, -1, -1)
        self.inputs = nn.Parameter(torch.view_as_real(vectors).clone())
        outputs = torch.randn(width, state // 2, dtype=torch.complex64)
        vectors = torch.stack([outputs, low_rank.expand(width, -1)], dim=1)
        self.outputs = nn.Parameter(torch.view_as_real(vectors).clone())
        self.skip = nn.Parameter(torch.randn(width))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)

    def kernel(self) -> Tensor:
        """The impulse response of each channel, ``D length``.

        Its generating function at the roots of unity (Gu et al. 2022, section 3.3): sums over poles, corrected for
        the low rank by Woodbury's identity. Everything is multiplied by ``1 + root``, which is zero at one of them.
        """
        step = self.log_step.exp()
        pole = _scale(self.poles.unbind(-1), step[:, None])
        conjugate = (pole[0], -pole[1])
        (cr, ci), given = self.outputs[:, :, None].unbind(-1), self.inputs[:, None].unbind(-1)
        pairs = _times((cr, -ci), given)  # D 2 2 N: of outputs and low rank, with inputs and low rank
        a, b, square, product, other = self._roots()
        modulus = pole[0].square() + pole[1].square()
        real, imaginary = (
            o - p * (2 * pole[0])[..., None] + q * modulus[..., None] for q, p, o in zip(square, product, other)
        )  # b^2 - 2ab Re(pole) + a^2 |pole|^2: D N F
        size = real.square() + imaginary.square()
        inverse = torch.cat([real / size, -imaginary / size], dim=-1)
        turned, _ = _times(pairs, (conjugate[0][:, None, None], conjugate[1][:, None, None]))
        sums = torch.cat([pairs[0].flatten(1, 2), turned.flatten(1, 2)], dim=1) @ inverse  # D 8 2F
        plain, weighted = (part.chunk(2, dim=-1) for part in sums.chunk(2, dim=1))
        resolvent = _scale(_minus(_times(b, plain), _times(a, weighted)), 2 * step[:, None, None])
        whole, first, second, last = ((resolvent[0][:, i], resolvent[1][:, i]) for i in range(4))
        corrected = _times(a, last)
        low_rank = _over(_times(a, _times(first, second)), (1 + corrected[0], corrected[1]))
        spectrum = torch.stack(_scale(_minus(whole, low_rank), 2), dim=-1)
        return torch.fft.irfft(torch.view_as_complex(spectrum), n=self.length)

    def _roots(self) -> tuple[Pair, ...]:
        """``a = 1 + r`` and ``b = 2 - 2r`` of the roots of unity ``r``, and ``a^2``, ``ab`` and ``b^2``."""
        angle = torch.arange(self.length // 2 + 1, device=self.skip.device, dtype=torch.float64)
        angle = angle * (-2 * torch.pi / self.length)
        a, b = (1 + angle.cos(), angle.sin()), (2 - 2 * angle.cos(), -2 * angle.sin())
        pairs = a, b, _times(a, a), _times(a, b), _times(b, b)
        return tuple((x.to(self.skip.dtype), y.to(self.skip.dtype)) for x, y in pairs)

    def convolve(self, x: Tensor) -> Tensor:
        """The state spaces' outputs for ``B L D``, without what follows them.

        Raises:
            ValueError: the sequence is longer than the layer was built for.
        """
        length = x.shape[1]
        if length > self.length:
            raise ValueError(f"this layer was built for sequences of up to {self.length}, got {length}")
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.skip.dtype).transpose(1, 2)
            of_kernel, of_x = (
                torch.view_as_real(torch.fft.rfft(y, n=2 * length)).unbind(-1) for y in (self.kernel()[:, :length], x)
            )
            spectrum = torch.view_as_complex(torch.stack(_times(of_kernel, of_x), dim=-1))
            y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + x * self.skip[:, None]
            return y.transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self.out(self.dropout(F.gelu(self.convolve(x))))


class S4Block(nn.Module):
    """S4 of normalised tokens, added to them; then the mean of every two, narrowed: ``B L D -> B L/2 D/2``."""

    def __init__(self, width: int, length: int, *, state: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.s4 = S4(width, length, state=state, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(width, width // 2)

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Apply the block, to tokens that may be normalised already; the last of an odd number is left out."""
        x = x + self.dropout(self.s4(self.norm(x) if normed is None else normed))
        x = F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)
        return F.gelu(self.narrow(x))


@dataclass(frozen=True, kw_only=True)
class SelectiveS4Architecture(TransformerArchitecture):
    """The configuration of the transformer of frames, and of the layers over the tokens of all frames."""

    frame_pool: Count = 1
    """Height and width, in patches, of the mean that becomes one token of the video."""
    video_depth: Count
    """Number of S4 layers, each of which halves width and length."""
    state: Count = 64
    """Numbers in the state of one channel; even."""
    s4_dropout: ShareBelowOne = 0.0
    """Dropout rate within and after S4 layers."""
    selection: Selection = "learned"
    """Tokens that the layers see: those that the mask generator scores highest, as many ``random`` ones, or all."""
    kept: PositiveShare = 0.5
    """Share of the tokens that the layers see."""
    momentum: Share = 0.99
    """Momentum of the copy of the first layer that the mask generator reads."""


class SelectiveS4(nn.Module):
    """The mask generator, its slow copy of the first layer, and the layers: ``B L D -> B M D / 2^depth``."""

    def __init__(self, config: SelectiveS4Architecture, length: int) -> None:
        super().__init__()
        width, depth = config.width, config.video_depth
        self.depth, self.width = depth, width >> depth
        self.count = length if config.selection == "none" else max(1, round(config.kept * length))
        if width % (1 << depth) or self.count >> depth < 1 or config.state % 2:
            raise UserError(
                f"{depth} S4 layers halve a width of {width} and {self.count} tokens {depth} times, with a state of "
                f"{config.state}: width has to be a multiple of {1 << depth}, tokens at least as many, state even"
            )
        self.selection: Selection = config.selection
        self.momentum = config.momentum
        self.blocks = nn.ModuleList(
            # The first is as long as all tokens: its copy sees them all.
            S4Block(width >> i, self.count >> i if i else length, state=config.state, dropout=config.s4_dropout)
            for i in range(depth)
        )
        if self.selection == "learned":
            first = self.blocks[0]
            self.slow = copy.deepcopy(nn.ModuleDict({"norm": first.norm, "s4": first.s4})).requires_grad_(False)
            self.generator = nn.Sequential(nn.Linear(width, width // 4), nn.GELU(), nn.Linear(width // 4, 1))

    def forward(
        self, tokens: Tensor, seeds: Tensor | None = None, layers: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The last layer's tokens, in the order of the video; with ``layers`` also each layer's.

        ``seeds`` (``B``) make the selection a random one: proportional to the exponential of the score (``learned``,
        Gumbel-top-k), or even (``random``, which takes seeds of 0, 1, ... if there are none).
        """
        x, normed = self.selected(tokens, seeds)
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x, normed if i == 0 else None)
            if layers:
                seen.append(x)
        return x, seen

    def scores(self, tokens: Tensor) -> Tensor:
        """The mask generator's score of each token, ``B L``."""
        with torch.no_grad():
            context = self.slow["s4"](self.slow["norm"](tokens))
        return self.generator(context).squeeze(-1).float()

    def chosen(self, scores: Tensor, seeds: Tensor | None) -> Tensor:
        """Indices of the tokens with the highest scores, ``B count``, ascending; with ``seeds`` of noisy scores."""
        if seeds is not None:
            drawn = uniform(seeds, scores.shape[1], "selective_s4.tokens").clamp(1e-7, 1 - 1e-7)
            scores = scores - (-drawn.log()).log()
        return scores.topk(self.count, dim=1).indices.sort(dim=1).values

    def selected(self, tokens: Tensor, seeds: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The tokens that the layers see, ``B count D``, and in training of the generator their normalised form.

        There every token, seen or not, has a gate, the sigmoid of its score, by which it is added to the next one
        that is seen (to itself if it is); less that sum, so that nothing changes but gradients. By them the generator
        learns of what it left out, too.
        """
        if self.selection == "none":
            return tokens, None
        if self.selection == "random":
            if seeds is None:
                seeds = torch.arange(tokens.shape[0], device=tokens.device)
            even = torch.zeros_like(tokens[..., 0], dtype=torch.float32)
            return take(tokens, self.chosen(even, seeds)), None
        scores = self.scores(tokens)
        index = self.chosen(scores.detach(), seeds)
        if not (self.training and torch.is_grad_enabled()):
            return take(tokens, index), None
        seen = torch.zeros_like(scores, dtype=torch.long).scatter(1, index, 1)
        next_seen = (seen.cumsum(dim=1) - seen).clamp(max=self.count - 1)[..., None].expand_as(tokens)
        gate = scores.sigmoid().to(tokens.dtype)[..., None]

        def gated(x: Tensor) -> Tensor:
            kept = take(x, index)
            return kept + torch.zeros_like(kept).scatter_add(1, next_seen, (gate - gate.detach()) * x)

        return gated(tokens), gated(self.blocks[0].norm(tokens))

    @torch.no_grad()
    def move(self) -> None:
        """Move the slow copy towards the first layer: ``slow <- momentum * slow + (1 - momentum) * layer``."""
        if self.selection == "learned":
            first = self.blocks[0]
            fast = [*first.norm.parameters(), *first.s4.parameters()]
            torch._foreach_lerp_(list(self.slow.parameters()), fast, 1 - self.momentum)


class SelectiveS4Encoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a transformer of each frame, then :class:`SelectiveS4` over them.

    Its tokens are moments of the video: as the selected tokens lie in it, ``2^depth`` of them in each.
    """

    def __init__(self, config: SelectiveS4Architecture) -> None:
        super().__init__()
        self.frames = FrameTransformer(config)
        t, h, w = self.frames.grid
        self.frame_pool = config.frame_pool
        if h % self.frame_pool or w % self.frame_pool:
            raise UserError(
                f"frames of {h} x {w} patches are not a multiple of frame_pool {self.frame_pool}: change it"
            )
        self.video = SelectiveS4(config, t * (h // self.frame_pool) * (w // self.frame_pool))
        self.width = self.video.width
        self.depth = self.frames.depth + self.video.depth
        self.patch_size = self.frames.patch_size

    def forward(self, video: Tensor, layers: bool = False, seeds: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into ``B M D`` tokens on a grid of ``M`` moments; with ``layers`` also each S4
        layer's, of their own widths and numbers. ``seeds`` (``B``) draw the selection at random."""
        tokens, seen = self.video(self.tokens(video), seeds, layers)
        return Features(tokens, Grid(tokens.shape[1], 1, 1), tuple(seen))

    def tokens(self, video: Tensor) -> Tensor:
        """The normalised tokens of all frames, frame by frame, ``B L D``; of a clip of ``k`` times as many frames as
        the network was built for, those of every ``k``-th.

        Raises:
            ValueError: the clip has no such number of frames.
        """
        t, h, w = self.frames.grid
        frames = t * self.patch_size[0]
        if video.shape[1] % frames or not video.shape[1]:
            raise ValueError(
                f"this network was built for clips of {frames} frames, or multiples, got {video.shape[1]}"
            )
        steps, _ = self.frames.steps(video[:, :: video.shape[1] // frames])
        x, pool = self.frames.norm(steps[:, :, 1:]), self.frame_pool
        if pool > 1:
            x = x.unflatten(2, (h // pool, pool, w // pool, pool)).mean(dim=(3, 5)).flatten(2, 3)
        return x.flatten(1, 2)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the frames' come first, then those of S4."""
        part, _, rest = name.partition(".")
        if part == "frames":
            return self.frames.depth_of(rest)
        block = re.match(r"blocks\.(\d+)\.", rest)
        return self.frames.depth + (int(block[1]) + 1 if block else 0)

    def load_image(self, image: dict[str, Tensor]) -> None:
        """Take over an image transformer's weights for the frames, in place."""
        self.frames.load_image(image)


def is_dynamics(name: str) -> bool:
    """Whether a parameter is one of a state space's own, which have no weight decay, as published."""
    return name.endswith((".poles", ".inputs", ".log_step", ".skip"))
