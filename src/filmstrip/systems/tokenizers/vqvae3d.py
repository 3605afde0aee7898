"""VQ-VAE over space and time: video becomes a small grid of codes, which a transformer can model.

3D convolutions and residual blocks with axial attention on either side of a codebook whose codes are moving averages
of the latents they stand for; dead codes restart, and the loss is the squared error in units of the data's variance.
The first half of VideoGPT: Yan et al., "VideoGPT: Video Generation using VQ-VAE and Transformers", 2021.

    filmstrip train tokenizers.vqvae3d:bair --data.path PATH

There are two forms of it. The paper draws residual blocks with layer normalisation and 128 units, positions that all
attention layers share, and halving by 3 x 3 x 3 kernels: ``tiny`` and what we measured have that. Its code, and so
the weights it released, has batch normalisation, half the channels (120), no positions and kernels of 4 x 4 x 4: the
paper's presets have that, equal to the published code (tests/parity/test_published_videogpt.py), and ``--init FILE``
reads those weights.

Where we deviate: codes become latents of the first step when that step ends (published: before it), and a code that
restarts begins its averages anew (published: they go on, and the code is another latent in every step until it is in
use again). Attention can be left out, and a single halving is possible (the published encoder cannot be built for
patches of 2 x 2 x 2). Weights start as PyTorch's (published: attention's by its width). The variance is a setting,
0.06 as published, and only scales the error against the commitment. The paper trains UCF-101 at 64 and at 128 pixels,
and its table has the former.

The paper reports, on BAIR with and without attention: normalised MSE 0.0033 and 0.0041, reconstruction FVD 14.9 and
15.3. We measured, with an earlier form of ``filmstrip claims vqvae_attention`` (motions at 32 x 32, 600 steps, one
seed), error over variance 0.473 with attention (528,435 parameters) and 0.497 without (546,163): the same direction,
a smaller gap; after 200 steps, in which the claim runs today, attention is not ahead yet. ``filmstrip claims
vqvae_codebook`` (512 codes, 200 steps, mean of five seeds): moving averages with restarts keep 97% of the codes in
use, perplexity 424, error over variance 0.648; without restarts 2.4%, 9.4 and 0.687; codes learnt by gradient 6.4%,
8.1 and 0.724.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.nn.axial import AxialAttention, AxialPositions
from filmstrip.nn.channel_norm import ChannelNorm
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Loss, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant
from filmstrip.weights.keymap import COUNTERS, Rules, Weights, check_names, renamed
from filmstrip.weights.layers import fuse

Form = Literal["paper", "released"]
"""Form of a :class:`VideoAutoencoder`: as in the paper's text, or as in its code and released weights."""
_PUBLISHED: Rules = (
    (r"^encoder\.convs\.(\d+)\.conv\.", r"autoencoder.down.\1."),
    (r"^encoder\.conv_last\.conv\.", "autoencoder.last."),
    (r"^decoder\.convts\.(\d+)\.convt\.", r"autoencoder.up.\1."),
    (r"^pre_vq_conv\.conv\.", "autoencoder.to_latents."),
    (r"^post_vq_conv\.conv\.", "autoencoder.from_latents."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.6\.", r"autoencoder.\1.blocks.\2.norm."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.8\.", r"autoencoder.\1.blocks.\2.attention."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.(\d+)\.", r"autoencoder.\1.blocks.\2.convs.\3."),
    (r"^(encoder|decoder)\.res_stack\.\d+\.", r"autoencoder.\1.norm."),
    (r"\.conv\.", "."),
    (r"\.attn_t\.", ".time."),
    (r"\.attn_h\.", ".height."),
    (r"\.attn_w\.", ".across."),
    (r"\.fc\.", ".out."),
)
"""Names of the published code to ours."""
_AVERAGES = {"codes": "embeddings", "size": "N", "total": "z_avg"}
"""Names of the codebook's buffers, ours to theirs."""


class ResidualBlock(nn.Module):
    """Two convolutions, then axial attention where ``num_heads`` is not zero, added to the input: ``B C T H W``."""

    def __init__(self, config: VQVAE3DConfig) -> None:
        super().__init__()
        width, residual_width, num_heads = config.width, config.residual_width, config.num_heads
        form = config.form
        self.convs = nn.Sequential(
            _norm(width, form),
            nn.ReLU(),
            nn.Conv3d(width, residual_width, 3, padding=1, bias=False),
            _norm(residual_width, form),
            nn.ReLU(),
            nn.Conv3d(residual_width, width, 1, bias=False),
        )
        self.attention = AxialAttention(width, num_heads) if num_heads else None
        self.norm = _norm(width, form) if num_heads else None

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Apply the block; ``positions`` (``t h w D``), if there are any, are added to what attention sees."""
        y = self.convs(x)
        if self.attention is not None:
            seen = rearrange(F.relu(self.norm(y)), "b c t h w -> b t h w c")
            seen = seen if positions is None else seen + positions
            y = rearrange(self.attention(seen), "b t h w c -> b c t h w")
        return x + y


class ResidualStack(nn.Module):
    """Residual blocks, a norm and a nonlinearity: ``B C T H W``."""

    def __init__(self, config: VQVAE3DConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(config) for _ in range(config.depth))
        self.norm = _norm(config.width, config.form)

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Apply the blocks in turn."""
        for block in self.blocks:
            x = block(x, positions)
        return F.relu(self.norm(x))


class DownConv(nn.Conv3d):
    """A convolution of ``4 x 4 x 4`` that divides each axis by its stride, 1 or 2, padded to do so."""

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__(inputs, outputs, 4, stride=tuple(stride))

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C' T/s H/s W/s``."""
        before_and_after = {1: (2, 1), 2: (1, 1)}
        return super().forward(F.pad(x, [p for s in reversed(self.stride) for p in before_and_after[s]]))


class UpConv(nn.ConvTranspose3d):
    """A transposed convolution of ``4 x 4 x 4`` that multiplies each axis by its stride, 1 or 2, padded to do so."""

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__(inputs, outputs, 4, stride=tuple(stride), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C' T*s H*s W*s``."""
        t, h, w = (size * s for size, s in zip(x.shape[2:], self.stride))
        return super().forward(x)[:, :, :t, :h, :w]  # where the stride is 1, one place more comes out


class VideoAutoencoder(nn.Module):
    """Strided 3D convolutions down to a grid, residual blocks with axial attention, and the reverse.

    ``form``: in the ``paper`` norms are layer norms, convolutions that halve have 3 x 3 x 3 kernels, and positions
    are learnt and shared by all attention layers of encoder and decoder; as ``released`` there are batch norms,
    kernels of 4 x 4 x 4 and no positions. ``num_heads`` of zero leaves attention out. Only positions limit the size
    of the video.
    """

    frames_apart = False

    def __init__(self, config: VQVAE3DConfig, input_dim: int, latent_dim: int) -> None:
        super().__init__()
        width, form = config.width, config.form
        self.patch_size = config.patch_size
        strides = _strides(self.patch_size)
        grid = tuple(n // p for n, p in zip((config.num_frames, config.size, config.size), self.patch_size))
        self.positions = AxialPositions(grid, width) if config.num_heads and form == "paper" else None
        self.down = nn.ModuleList(_halve(width if i else 3, width, stride, form) for i, stride in enumerate(strides))
        self.last = nn.Conv3d(width, width, 3, padding=1)
        self.encoder = ResidualStack(config)
        self.to_latents = nn.Conv3d(width, input_dim, 1)
        self.from_latents = nn.Conv3d(latent_dim, width, 1)
        self.decoder = ResidualStack(config)
        self.up = nn.ModuleList(
            UpConv(width, width if i < len(strides) - 1 else 3, stride) for i, stride in enumerate(strides)
        )

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        x = rearrange(video - 0.5, "b t c h w -> b c t h w")
        for conv in self.down:
            x = F.relu(conv(x))
        x = self.encoder(self.last(x), self._embed(x))
        return rearrange(self.to_latents(x), "b d t h w -> b t h w d")

    def decode(self, latents: Tensor) -> Tensor:
        """Video ``B T C H W``, about 0..1, of latents ``B t h w D``."""
        x = self.from_latents(rearrange(latents, "b t h w d -> b d t h w"))
        x = self.decoder(x, self._embed(x))
        for i, conv in enumerate(self.up):
            x = conv(F.relu(x) if i else x)
        return rearrange(x, "b c t h w -> b t c h w") + 0.5

    def _embed(self, x: Tensor) -> Tensor | None:
        return None if self.positions is None else self.positions(x.shape[2:])


def _norm(width: int, form: Form) -> nn.Module:
    return ChannelNorm(width) if form == "paper" else nn.BatchNorm3d(width)


def _halve(inputs: int, outputs: int, stride: Sequence[int], form: Form) -> nn.Module:
    if form == "paper":
        return nn.Conv3d(inputs, outputs, 3, stride=tuple(stride), padding=1)
    return DownConv(inputs, outputs, stride)


def _strides(patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """The strides of convolutions that halve each axis until a patch is one place."""
    if min(patch_size) < 1 or any(size & (size - 1) for size in patch_size) or max(patch_size) < 2:
        raise UserError(f"patch sizes are powers of two, and at least one of them above 1, not {tuple(patch_size)}")
    strides, left = [], list(patch_size)
    while max(left) > 1:
        strides.append(tuple(2 if size > 1 else 1 for size in left))
        left = [max(size // 2, 1) for size in left]
    return strides


class VQVAE3D(TokenizerObjective):
    """Squared error over the variance of the data, and what the codebook adds."""

    def __init__(self, config: VQVAE3DConfig) -> None:
        quantiser = config.codebook.build()
        super().__init__(VideoAutoencoder(config, quantiser.input_dim, quantiser.latent_dim), quantiser)
        self.data_variance = config.data_variance

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights in the released form, from a released state or what its file holds.

        Raises:
            UserError: the state is of another network, or of one of another size.
        """
        theirs = theirs.get("state_dict", theirs)
        averages = [f"codebook.{name}" for name in _AVERAGES.values()]
        check_names("this is not the state of the published VQ-VAE: it", theirs, averages, spare=(".*",))
        rest = {renamed(name, _PUBLISHED): value for name, value in theirs.items() if name not in averages}
        ours = fuse(rest, ("w_qs", "w_ks", "w_vs"))
        ours |= {f"bottleneck.{name}": theirs[f"codebook.{key}"][None] for name, key in _AVERAGES.items()}
        check_names("the published VQ-VAE, in our names,", ours, self.state_dict(), optional=(COUNTERS,))
        return ours

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch; logs the normalised error and how much of the codebook it used."""
        video = as_float(batch["video"])
        rebuilt, passage = self.pass_through(video)
        error = F.mse_loss(rebuilt.float(), video) / self.data_variance
        return Loss(error + passage.loss, {"nmse": error.detach(), **passage.metrics})


@dataclass(frozen=True, kw_only=True)
class VQVAE3DConfig(ObjectiveConfig):
    """The network and its codebook."""

    width: Count = 240
    """Number of channels, a multiple of 3 (shared by the position embeddings' axes) and of ``num_heads``."""
    residual_width: Count = 128
    """Number of channels between the two convolutions of a residual block."""
    depth: Count = 4
    """Number of residual blocks in the encoder, and in the decoder."""
    num_heads: CountOrZero = 2
    """Number of heads of the axial attention; zero for no attention."""
    patch_size: tuple[Count, Count, Count] = (2, 2, 2)
    """Frames, rows and columns that one code represents, powers of two."""
    form: Form = "paper"
    """Form of the blocks: as in the paper's figures, or as in its code and released weights."""
    num_frames: Count = 16
    size: Count = 64
    codebook: Codebook = field(default_factory=Codebook)
    data_variance: Rate = 0.06
    """Variance of the pixels in 0..1."""

    def build(self) -> VQVAE3D:
        """Build the network with fresh weights."""
        return VQVAE3D(self)


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VQVAE3DConfig(
            width=48,
            residual_width=24,
            depth=1,
            patch_size=(2, 4, 4),
            num_frames=8,
            size=32,
            codebook=Codebook(size=64, dim=16),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0),
        train=Loop(length=Steps(100)),
    )


_BAIR = VQVAE3DConfig(
    width=240,
    depth=4,
    num_heads=2,
    patch_size=(2, 2, 2),
    num_frames=16,
    size=64,
    codebook=Codebook(size=1024, dim=256),
    data_variance=0.06,
)


def _paper(network: VQVAE3DConfig, *, steps: int) -> Run:
    """The released form; 16 frames, batches of 32, a constant rate of 7e-4 (table A.1)."""
    network = replace(network, form="released", residual_width=network.width // 2)
    size = network.size
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=network,
        optim=AdamW(lr=7e-4, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(steps), clip_grad=None),
    )


def moving_mnist() -> Run:
    """Moving MNIST: 4 x 16 x 16 codes of 512, no attention."""
    network = replace(_BAIR, depth=2, num_heads=0, patch_size=(4, 4, 4), codebook=Codebook(size=512, dim=64))
    return _paper(network, steps=20_000)


def bair() -> Run:
    """BAIR robot pushing, and RoboNet: 8 x 32 x 32 codes of 1024."""
    return _paper(_BAIR, steps=100_000)


def vizdoom() -> Run:
    """ViZDoom: BAIR's network."""
    return _paper(_BAIR, steps=100_000)


def ucf101() -> Run:
    """UCF-101 at 64 x 64: 4 x 32 x 32 codes of 1024."""
    return _paper(replace(_BAIR, patch_size=(4, 2, 2)), steps=100_000)


def ucf101_128() -> Run:
    """UCF-101 at 128 x 128: as many codes, each for 4 x 4 x 4 pixels, as the published weights have it."""
    return _paper(replace(_BAIR, patch_size=(4, 4, 4), size=128), steps=100_000)


def tgif() -> Run:
    """Tumblr GIF: UCF-101's network."""
    return _paper(replace(_BAIR, patch_size=(4, 2, 2)), steps=100_000)
