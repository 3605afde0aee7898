"""VQ-VAE over space and time: video becomes a small grid of codes, which a transformer can model.

3D convolutions and residual blocks with axial attention on either side of a codebook whose codes are moving averages
of the latents they stand for; dead codes restart, and the loss is the squared error in units of the data's variance.
The first half of VideoGPT: Yan et al., "VideoGPT: Video Generation using VQ-VAE and Transformers", 2021.

    filmstrip train tokenizers.vqvae3d:bair --data.path PATH

There are two forms of it. The paper draws residual blocks with layer normalisation and 128 units, positions that all
attention layers share, and halving by 3 x 3 x 3 kernels: ``tiny`` and what we measured have that. Its code, and so
the weights it released, has batch normalisation, half the channels (120), no positions and kernels of 4 x 4 x 4: the
paper's presets have that, equal to the published code (tests/parity/test_published_videogpt.py), and
``weights/videogpt.py`` maps the weights.

Where we deviate: codes become latents of the first step when that step ends (published: before it), and a code that
restarts begins its averages anew (published: they go on, and the code is another latent in every step until it is in
use again). Attention can be left out, and a single halving is possible (the published encoder cannot be built for
patches of 2 x 2 x 2). Weights start as PyTorch's (published: attention's by its width). The variance is a setting,
0.06 as published, and only scales the error against the commitment. The paper trains UCF-101 at 64 and at 128 pixels,
and its table has the former.

The paper reports, on BAIR with and without attention: normalised MSE 0.0033 and 0.0041, reconstruction FVD 14.9 and
15.3. We measured, with ``python claims/vqvae_attention.py`` (motions at 32 x 32, 600 steps, one seed), error over
variance 0.473 with attention (528,435 parameters) and 0.497 without (546,163): the same direction, a smaller gap.
With ``claims/vqvae_codebook.py`` (512 codes, 300 steps), moving averages with restarts keep 99% of the codes in use,
perplexity 407, error over variance 0.515; without restarts 1.4%, 6.8 and 0.670; codes learnt by gradient 13.5%, 18.4
and 0.675.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch.nn.functional as F

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.video_autoencoder import Form, VideoAutoencoder
from filmstrip.nn.quantise import Bottleneck
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.tokenizing import Autoencoder, TokenizerObjective
from filmstrip.protocols import Batch, Loss, as_float
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.train.config import Loop, Optim


class VQVAE3D(TokenizerObjective):
    """Squared error over the variance of the data, and what the codebook adds."""

    def __init__(self, autoencoder: Autoencoder, bottleneck: Bottleneck, *, data_variance: float) -> None:
        super().__init__(autoencoder, bottleneck)
        self.data_variance = data_variance

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch; logs the normalised error and how much of the codebook it used."""
        video = as_float(batch["video"])
        rebuilt, passage = self.pass_through(video)
        error = F.mse_loss(rebuilt.float(), video) / self.data_variance
        return Loss(error + passage.loss, {"nmse": error.detach(), **passage.metrics})


@dataclass(frozen=True, kw_only=True)
class VQVAE3DConfig(ObjectiveConfig):
    """The network and its codebook; the defaults are BAIR's."""

    width: Count = 240
    """Channels, a multiple of 3 (the position embeddings' axes share them) and of ``num_heads``."""
    residual_width: Count = 128
    """Channels between the two convolutions of a residual block."""
    depth: Count = 4
    """Residual blocks in the encoder, and in the decoder."""
    num_heads: CountOrZero = 2
    """Of the axial attention; zero leaves it out."""
    patch_size: tuple[Count, Count, Count] = (2, 2, 2)
    """Frames, rows and columns that one code stands for: powers of two."""
    form: Form = "paper"
    """Blocks as the paper draws them, or as its code and its released weights have them."""
    num_frames: Count = 16
    size: Count = 64
    codebook: Codebook = field(default_factory=Codebook)
    data_variance: Rate = 0.06
    """Variance of the pixels in 0..1."""

    def build(self) -> VQVAE3D:
        """Build the network with fresh weights."""
        quantiser = self.codebook.build()
        autoencoder = VideoAutoencoder(
            input_dim=quantiser.input_dim,
            latent_dim=quantiser.latent_dim,
            patch_size=self.patch_size,
            num_frames=self.num_frames,
            size=self.size,
            width=self.width,
            residual_width=self.residual_width,
            depth=self.depth,
            num_heads=self.num_heads,
            form=self.form,
        )
        return VQVAE3D(autoencoder, quantiser, data_variance=self.data_variance)


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
        optim=Optim(lr=2e-3, weight_decay=0.0),
        train=Loop(steps=100),
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
        optim=Optim(lr=7e-4, weight_decay=0.0, schedule="constant", warmup=0.0),
        train=Loop(steps=steps, clip_grad=None),
    )


def moving_mnist() -> Run:
    """Moving MNIST: 4 x 16 x 16 codes of 512, no attention."""
    network = VQVAE3DConfig(depth=2, num_heads=0, patch_size=(4, 4, 4), codebook=Codebook(size=512, dim=64))
    return _paper(network, steps=20_000)


def bair() -> Run:
    """BAIR robot pushing, and RoboNet: 8 x 32 x 32 codes of 1024."""
    return _paper(VQVAE3DConfig(), steps=100_000)


def vizdoom() -> Run:
    """ViZDoom: BAIR's network."""
    return _paper(VQVAE3DConfig(), steps=100_000)


def ucf101() -> Run:
    """UCF-101 at 64 x 64: 4 x 32 x 32 codes of 1024."""
    return _paper(VQVAE3DConfig(patch_size=(4, 2, 2)), steps=100_000)


def ucf101_128() -> Run:
    """UCF-101 at 128 x 128: as many codes, each for 4 x 4 x 4 pixels, as the published weights have it."""
    return _paper(VQVAE3DConfig(patch_size=(4, 4, 4), size=128), steps=100_000)


def tgif() -> Run:
    """Tumblr GIF: UCF-101's network."""
    return _paper(VQVAE3DConfig(patch_size=(4, 2, 2)), steps=100_000)
