"""A U-Net over space, of images, and over space and time, of clips, with text by cross-attention.

Latent diffusion's U-Net (Rombach et al. 2022), and around it what makes it one of video: a temporal convolution after
every residual block and a temporal transformer after every spatial one (Singer et al. 2023; Wang et al. 2023,
ModelScope). Sizes and layout are those of ``UNet3DConditionModel`` and, without the temporal layers, of
``UNet2DConditionModel`` of ``diffusers``. The skeleton, :class:`UNet`, also takes blocks of other kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.errors import UserError
from filmstrip.nn.attention import Attention, Instead
from filmstrip.nn.linear import Linear
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.protocols import Rules
from filmstrip.weights.keymap import Weights, check_names, fitted, renamed

_FIRST_HEADS = 8  # of the temporal transformer before all levels, as published


class Place(NamedTuple):
    """One attention layer of a network."""

    kind: Literal["self", "cross", "time"]
    """Attention among the positions of a frame, of them to the text, or of a position among the frames."""
    layer: int
    """Number of the transformer in the order of computation, counted from 0 for each kind of transformer."""
    num_frames: int
    """Number of frames of a clip; rows of ``self`` and ``cross`` are ``B T``, those of ``time`` ``B h w``."""


class AttentionControl(Protocol):
    """Reads or decides attention from outside: records maps, replaces them, or lends keys and values."""

    def __call__(self, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Each head's output, ``B H N D``, of queries, keys and values ``B H N D``; none for the layer's own."""
        ...


@dataclass(frozen=True, kw_only=True)
class UNetArchitecture:
    """The configuration of a :class:`UNet`."""

    widths: Annotated[tuple[Count, ...], NotEmpty] = (320, 640, 1280, 1280)
    """Channels of each level; every level but the last halves height and width."""
    depth: Count = 2
    """Residual blocks in each level on the way down; on the way up there is one more."""
    depths: tuple[Count, ...] = ()
    """The same for each level, where they differ; by default all have the one depth."""
    attention_levels: tuple[CountOrZero, ...] = (0, 1, 2)
    """Levels with attention, counted from 0 at full resolution; the middle always has some."""
    head_dim: Count = 64
    """Dimension of an attention head."""
    groups: Count = 32
    """Groups of the normalisation."""


@dataclass(frozen=True, kw_only=True)
class VideoUNetArchitecture(UNetArchitecture):
    """The configuration of a :class:`VideoUNet`."""

    context_width: Count = 1024
    """Dimension of the text's vectors."""
    temporal: bool = True
    """Whether there are temporal layers; without them it is a network of images."""


class ResidualBlock(nn.Module):
    """Two convolutions of every frame, the time's vector added between them, and a way around: ``B C H W``.

    Where the time ``scales``, it does so after the second norm, and shifts there (Dhariwal and Nichol 2021).
    """

    def __init__(self, inputs: int, outputs: int, time_width: int, groups: int, *, scales: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.scales = scales
        self.time = nn.Linear(time_width, outputs * (1 + scales))
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block; ``time`` is ``B time_width``."""
        y, told = self.conv1(F.silu(self.norm1(x))), self.time(F.silu(time))[..., None, None]
        if self.scales:
            scale, shift = told.chunk(2, dim=1)
            y = self.norm2(y) * (1 + scale) + shift
        else:
            y = self.norm2(y + told)
        return self.shortcut(x) + self.conv2(F.silu(y))


class TemporalConvolution(nn.Module):
    """Four convolutions along time, added to the input; the last one starts at zero: ``B C T H W``."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width, eps=1e-5) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0)) for _ in range(4))
        start_at_zero(self.convs[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        y = x.flatten(3)
        for norm, conv in zip(self.norms, self.convs):
            # Over (time, position) in two dimensions: a CPU has no fast convolution in three.
            y = F.conv2d(F.silu(norm(y)), conv.weight.squeeze(-1), conv.bias, padding=(1, 0))
        return x + y.view_as(x)


class Transformer(nn.Module):
    """Two attentions and a gated feed-forward network, around linear layers, added to the input.

    Over the positions of each frame the second attention is to the text; over frames (no ``context_width``) both are
    among the frames, and the layer that leads out starts at zero.
    """

    def __init__(
        self, width: int, num_heads: int, head_dim: int, groups: int, *, context_width: int | None = None
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.into = Linear(width, inner)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(inner) for _ in range(3))
        self.attention1 = Attention(inner, num_heads, qkv_bias="none")
        self.attention2 = Attention(inner, num_heads, qkv_bias="none", context_width=context_width)
        self.gated = Linear(inner, 8 * inner)
        self.narrow = Linear(4 * inner, inner)
        self.out = Linear(inner, width)
        self.kinds: tuple[Literal["self", "cross", "time"], ...] = ("self", "cross")
        if context_width is None:
            self.kinds = ("time", "time")
            start_at_zero(self.out)

    def tokens(
        self, x: Tensor, context: Tensor | None, control: AttentionControl | None, layer: int, num_frames: int
    ) -> Tensor:
        """What is added to normalised tokens ``B N C``."""

        def instead(number: int) -> Instead | None:
            return None if control is None else partial(control, Place(self.kinds[number], layer, num_frames))

        x = self.into(x)
        x = x + self.attention1(self.norm1(x), instead=instead(0))
        x = x + self.attention2(self.norm2(x), context=context, instead=instead(1))
        value, gate = self.gated(self.norm3(x)).chunk(2, dim=-1)
        x = x + self.narrow(value * F.gelu(gate))
        return self.out(x)


class Block(nn.Module):
    """A residual block and, where asked for, a transformer; each is followed by its temporal counterpart."""

    def __init__(
        self, inputs: int, outputs: int, config: VideoUNetArchitecture, time_width: int, *, attention: bool
    ) -> None:
        super().__init__()
        groups, heads = config.groups, outputs // config.head_dim
        self.residual = ResidualBlock(inputs, outputs, time_width, groups)
        self.temporal_conv = TemporalConvolution(outputs, groups) if config.temporal else None
        self.attention = self.temporal_attention = None
        if attention:
            self.attention = Transformer(outputs, heads, config.head_dim, groups, context_width=config.context_width)
        if attention and config.temporal:
            self.temporal_attention = Transformer(outputs, heads, config.head_dim, groups)

    def forward(self, x: Tensor, step: _Step) -> Tensor:
        """``(B T) C H W``."""
        x = self.residual(x, step.time)
        if self.temporal_conv is not None:
            x = rearrange(x, "(b t) c h w -> b c t h w", t=step.num_frames)
            x = rearrange(self.temporal_conv(x), "b c t h w -> (b t) c h w")
        if self.attention is not None:
            height = x.shape[2]
            y = rearrange(self.attention.norm(x), "n c h w -> n (h w) c")
            y = self.attention.tokens(y, step.context, step.control, step.layer, step.num_frames)
            x = x + rearrange(y, "n (h w) c -> n c h w", h=height)
        if self.temporal_attention is not None:
            x = _over_time(self.temporal_attention, x, step, step.layer + 1)  # 0 is the one before all levels
        step.layer += self.attention is not None
        return x


class _Step:
    """What the layers of one forward pass share."""

    def __init__(self, time: Tensor, context: Tensor, num_frames: int, control: AttentionControl | None) -> None:
        self.time, self.context, self.num_frames, self.control = time, context, num_frames, control
        self.layer = 0


def _over_time(transformer: Transformer, x: Tensor, step: _Step, layer: int) -> Tensor:
    """A transformer over the frames at each position, added: ``(B T) C H W``."""
    frames, height, width = step.num_frames, x.shape[2], x.shape[3]
    y = transformer.norm(rearrange(x, "(b t) c h w -> b c t h w", t=frames))
    y = rearrange(y, "b c t h w -> (b h w) t c")
    y = transformer.tokens(y, None, step.control, layer, frames)
    return x + rearrange(y, "(b h w) t c -> (b t) c h w", h=height, w=width)


class Level(nn.Module):
    """Blocks at one resolution, then a change of it."""

    def __init__(self, blocks: list[Block], resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


class Up(nn.Conv2d):
    """Each position doubled in height and width, then a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C 2H 2W``."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class HalfUNet(nn.Module):
    """The way down of a U-Net, and its middle: blocks at halved resolutions, and a map of every one.

    A subclass says what a block is.
    """

    def __init__(self, config: UNetArchitecture, *, inputs: int) -> None:
        """``inputs`` is the number of channels.

        Raises:
            UserError: a width is no multiple of the groups or of a head, a level does not exist, or some have no
                depth.
        """
        super().__init__()
        widths, self.levels = config.widths, set(config.attention_levels)
        bad = [w for w in widths if w % config.groups or w % config.head_dim]
        if bad or (self.levels and max(self.levels) >= len(widths)):
            raise UserError(
                f"widths {widths} must be multiples of {config.groups} (the normalisation's groups) and of "
                f"{config.head_dim} (a head), and levels with attention be below {len(widths)}, not "
                f"{sorted(self.levels)}"
            )
        self.depths = config.depths or (config.depth,) * len(widths)
        if len(self.depths) != len(widths):
            raise UserError(
                f"there are {len(widths)} levels ({widths}) and depths of {len(self.depths)} of them: {self.depths}"
            )
        first, last = widths[0], widths[-1]
        self.time_width = 4 * first
        self.multiple = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(inputs, first, 3, padding=1)
        self.time = TimeEmbedding(self.time_width, frequencies=first // 2)
        self.first = self.before_levels(config)
        self.down = nn.ModuleList()
        self.passed_widths = [first]
        """Channels of the maps that are passed on."""
        for i, width in enumerate(widths):
            halved = i < len(widths) - 1
            before = widths[max(i - 1, 0)]
            blocks = [
                self.block(width if j else before, width, config, attention=i in self.levels)
                for j in range(self.depths[i])
            ]
            half = nn.Conv2d(width, width, 3, stride=2, padding=1) if halved else nn.Identity()
            self.down.append(Level(blocks, half))
            self.passed_widths += [width] * (self.depths[i] + halved)
        self.middle = nn.ModuleList(self.block(last, last, config, attention=at) for at in (True, False))

    def block(self, inputs: int, outputs: int, config: Any, *, attention: bool) -> nn.Module:
        """A block of frames ``N C H W``, which is called with them and what the layers of a pass share."""
        raise TypeError(f"{type(self).__name__} does not define block")

    def before_levels(self, config: Any) -> nn.Module | None:
        """What comes between the first convolution and the levels: nothing."""
        return None

    def check_size(self, height: int, width: int) -> None:
        """See that height and width can be halved as often as there are levels.

        Raises:
            ValueError: they cannot.
        """
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"expected height and width in multiples of {self.multiple}, got {height} x {width} positions"
            )

    def contracted(self, x: Tensor, step: Any) -> tuple[list[Tensor], Tensor]:
        """The maps that a way up reads, each ``N C h w``, and the middle's, of frames ``N C H W`` that the first
        convolution has read; ``step`` is told to every block."""
        passed = [x]
        for level in self.down:
            for block in level.blocks:
                x = block(x, step)
                passed.append(x)
            if not isinstance(level.resample, nn.Identity):
                x = level.resample(x)
                passed.append(x)
        for block in self.middle:
            x = block(x, step)
        return passed, x

    def depth_of(self, name: str) -> int:
        """The layer of a parameter, counted from the input."""
        part, _, rest = name.partition(".")
        count = len(self.down)
        if part in ("down", "up"):
            return 1 + int(rest.split(".")[0]) + (count + 1 if part == "up" else 0)
        return {"middle": count + 1, "norm_out": 2 * count + 2, "conv_out": 2 * count + 2}.get(part, 0)


class UNet(HalfUNet):
    """The way down, and up again, where each block is told what passed on the way down."""

    def __init__(self, config: UNetArchitecture, *, inputs: int, outputs: int) -> None:
        """``inputs`` and ``outputs`` are numbers of channels.

        Raises:
            UserError: as of :class:`HalfUNet`.
        """
        super().__init__(config, inputs=inputs)
        widths, skipped = config.widths, list(self.passed_widths)
        self.up = nn.ModuleList()
        inside = widths[-1]
        for i in reversed(range(len(widths))):
            blocks = []
            for _ in range(self.depths[i] + 1):
                blocks.append(self.block(inside + skipped.pop(), widths[i], config, attention=i in self.levels))
                inside = widths[i]
            self.up.append(Level(blocks, Up(widths[i], widths[i], 3, padding=1) if i else nn.Identity()))
        # Last as it was before half of a U-Net was a class: saved states of optimisers follow the parameters' order.
        self.middle = self._modules.pop("middle")
        self.norm_out = nn.GroupNorm(config.groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def through(self, x: Tensor, step: Any, beside: tuple[Sequence[Tensor], Tensor] | None = None) -> Tensor:
        """Outputs ``N D H W`` of frames ``N C H W``; ``step`` is told to every block.

        ``beside`` are maps that are added to those that are passed on to the way up, and to the middle's.
        """
        passed, x = self.contracted(self.conv_in(x), step)
        if beside is not None:
            passed, x = [own + other for own, other in zip(passed, beside[0], strict=True)], x + beside[1]
        for level in self.up:
            for block in level.blocks:
                x = block(torch.cat([x, passed.pop()], dim=1), step)
            x = level.resample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class HalfVideoUNet(HalfUNet):
    """The way down of a :class:`VideoUNet`, and its middle.

    Temporal layers start as identity: a new network is the image's network on every frame.
    """

    def block(self, inputs: int, outputs: int, config: VideoUNetArchitecture, *, attention: bool) -> Block:
        """See :class:`Block`."""
        return Block(inputs, outputs, config, self.time_width, attention=attention)

    def before_levels(self, config: VideoUNetArchitecture) -> Transformer | None:
        """A transformer over the frames, where there are temporal layers."""
        return (
            Transformer(config.widths[0], _FIRST_HEADS, config.head_dim, config.groups) if config.temporal else None
        )

    def start(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        *,
        added: Tensor | None = None,
        control: AttentionControl | None = None,
    ) -> _Step:
        """What the layers of a pass share; arguments as of :meth:`VideoUNet.forward`.

        Raises:
            ValueError: height or width cannot be halved as often as there are levels.
        """
        self.check_size(*x.shape[3:])
        vector = self.time(time) if added is None else self.time(time) + added
        each = partial(repeat, pattern="b ... -> (b t) ...", t=x.shape[1])
        return _Step(each(vector), each(context), x.shape[1], control)

    def contracted(self, x: Tensor, step: _Step) -> tuple[list[Tensor], Tensor]:
        """The maps that the way up reads, each ``(B T) C h w``, and the middle's, from what ``conv_in`` gave."""
        if self.first is not None:
            x = _over_time(self.first, x, step, 0)
        return super().contracted(x, step)

    def is_temporal(self, name: str) -> bool:
        """Whether a parameter is one of the temporal layers."""
        return name.startswith("first.") or ".temporal_" in name


class VideoUNet(HalfVideoUNet, UNet):
    """``B T C h w`` and the text's vectors to ``B T D h w``; frames alone where it has no temporal layers."""

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        *,
        added: Tensor | None = None,
        control: AttentionControl | None = None,
        beside: tuple[Sequence[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``B T D h w`` for times ``B`` (0..1000) and text ``B L context_width``.

        ``added`` (``B time_width``) is added to the time's vector; ``control`` sees every attention; ``beside`` are
        maps that are added to those that are passed on to the way up, and to the middle's.

        Raises:
            ValueError: height or width cannot be halved as often as there are levels.
        """
        step = self.start(x, time, context, added=added, control=control)
        return self.through(x.flatten(0, 1), step, beside).unflatten(0, x.shape[:2])


def start_at_zero(layer: nn.Module) -> None:
    """Set a layer's parameters to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


_RULES: Rules = (
    (r"^down\.(\d+)\.resample\.", r"down_blocks.\1.downsamplers.0.conv."),
    (r"^up\.(\d+)\.resample\.", r"up_blocks.\1.upsamplers.0.conv."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.residual\.", r"\1_blocks.\2.resnets.\3."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.temporal_conv\.", r"\1_blocks.\2.temp_convs.\3."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.attention\.", r"\1_blocks.\2.attentions.\3."),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.temporal_attention\.", r"\1_blocks.\2.temp_attentions.\3."),
    (r"^middle\.(\d+)\.residual\.", r"mid_block.resnets.\1."),
    (r"^middle\.(\d+)\.temporal_conv\.", r"mid_block.temp_convs.\1."),
    (r"^middle\.(\d+)\.attention\.", r"mid_block.attentions.\1."),
    (r"^middle\.(\d+)\.temporal_attention\.", r"mid_block.temp_attentions.\1."),
    (r"^first\.", "transformer_in."),
    (r"^time\.fc(\d)\.", r"time_embedding.linear_\1."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"(resnets\.\d+)\.time\.", r"\1.time_emb_proj."),
    (r"\.norms\.0\.", ".conv1.0."),
    (r"\.convs\.0\.", ".conv1.2."),
    (r"\.norms\.1\.", ".conv2.0."),
    (r"\.convs\.1\.", ".conv2.3."),
    (r"\.norms\.2\.", ".conv3.0."),
    (r"\.convs\.2\.", ".conv3.3."),
    (r"\.norms\.3\.", ".conv4.0."),
    (r"\.convs\.3\.", ".conv4.3."),
    (r"\.into\.", ".proj_in."),
    (r"(attentions\.\d+|transformer_in)\.out\.", r"\1.proj_out."),
    (
        r"(attentions\.\d+|transformer_in)\.(norm\d|attention\d|gated|narrow)\.",
        r"\1.transformer_blocks.0.\2.",
    ),
    (r"\.attention([12])\.out\.", r".attn\1.to_out.0."),
    (r"\.attention([12])\.", r".attn\1."),
    (r"\.gated\.", ".ff.net.0.proj."),
    (r"\.narrow\.", ".ff.net.2."),
)
_FUSED = {"qkv": ("to_q", "to_k", "to_v"), "kv": ("to_k", "to_v"), "q": ("to_q",)}


def _in_diffusers(name: str) -> list[str]:
    """Their names for a weight: several for fused queries, keys and values."""
    name = renamed(name, _RULES)
    for ours, theirs in _FUSED.items():
        if f".{ours}." in name:
            return [name.replace(f".{ours}.", f".{part}.") for part in theirs]
    return [name]


def from_diffusers_unet(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Weights:
    """Weights of a :class:`VideoUNet` from a U-Net of ``diffusers``, of video or of images.

    ``wanted`` is our network's own state. Of a network of images temporal layers are left out, and stay as they are;
    input channels that theirs lacks, those of conditions, are zero.

    Raises:
        UserError: a weight is missing, has no place here, or is of another shape.
    """
    of_video = any(".temp_" in name for name in theirs)
    names = [n for n in wanted if of_video or not (n.startswith("first.") or ".temporal_" in n)]
    check_names("this U-Net in diffusers' layout", theirs, [key for name in names for key in _in_diffusers(name)])
    ours = {name: torch.cat([theirs[key] for key in _in_diffusers(name)]) for name in names}
    own, given = wanted["conv_in.weight"], ours["conv_in.weight"]
    if given.shape[1] < own.shape[1]:
        ours["conv_in.weight"] = F.pad(given, (0, 0, 0, 0, 0, own.shape[1] - given.shape[1]))
    # Linear layers around transformers are 1 x 1 convolutions in older files.
    return {name: fitted(tensor, wanted[name]) for name, tensor in ours.items()}


def to_diffusers_unet(ours: Mapping[str, Tensor]) -> Weights:
    """Their weights from ours."""
    theirs: Weights = {}
    for name, tensor in ours.items():
        keys = _in_diffusers(name)
        theirs |= dict(zip(keys, (part.contiguous() for part in tensor.chunk(len(keys)))))
    return theirs
