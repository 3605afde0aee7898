"""Future frames: a network of (2+1)D convolutions sees the beginning of a clip and predicts the frames that follow.

What moves, and which way, is what it needs to know for that, and nobody has to say it: what is learnt without labels
transfers to few of them (``filmstrip train recognition.r2plus1d --init RUN --data.videos-per-class 5``). The idea is
the future predictor of Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using
LSTMs", ICML 2015; the encoder is that of Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action
Recognition", CVPR 2018.

    filmstrip train pretraining.future_frames:small --data PATH

Where we deviate: the paper's encoder and predictor are LSTMs over frames (or over features of frames), and a second
decoder rebuilds the input, which a network that keeps places does not need. Here one pass of convolutions predicts
all frames at once, as changes of the last frame that was seen, so that what stands still costs nothing. The loss is
the paper's squared error of pixels, which blurs what cannot be known. All sizes and rates are ours: the paper has no
convolutional preset to follow.

The paper reports that its representations improve classification most when there are only few training examples. Here
(``filmstrip claims few_labels``, plain motions): 85.2% of unseen videos with 5 labels a class, from scratch 61.2%;
87.5% and 60.5% with 20, after 150 steps; after 600, 20 labels are enough from scratch too. On textured motions a few
hundred steps teach nothing (``docs/log.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.knn import KNN
from filmstrip.models.resnet import ResNet, ResNet2Plus1DArchitecture
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Grid, Loss, Objective, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class FutureFramesConfig(ResNet2Plus1DArchitecture, ObjectiveConfig):
    """A (2+1)D residual network of the first frames, and a small decoder that predicts the others."""

    num_frames: Count
    """Number of frames of a clip, those that are predicted included."""
    size: Count
    """Height and width of a frame, pixels."""
    num_predicted: Count
    """Number of frames, the last of the clip, that are predicted from those before."""
    decoder_width: Count = 128
    """Channels of the decoder's convolutions."""

    def build(self) -> FutureFrames:
        """Build the network with fresh weights.

        Raises:
            UserError: no frame is left to see, or the network's strides do not tile a frame.
        """
        if self.num_predicted >= self.num_frames:
            raise UserError(
                f"num_predicted {self.num_predicted} leaves no frame of a clip of {self.num_frames} to predict from: "
                "lower it, or cut longer clips"
            )
        if self.size % self.stride:
            raise UserError(
                f"size {self.size} is no multiple of {self.stride}, the network's stride: cut frames that are, such "
                f"as of {-(-self.size // self.stride) * self.stride} pixels"
            )
        return FutureFrames(self)

    @property
    def stride(self) -> int:
        """Pixels of a frame from one position of the last stage to the next."""
        return 2 * self.early_stride * 2 ** (len(self.widths) - 1)

    @property
    def grid(self) -> Grid:
        """The last stage's positions of the frames that are seen; a stage after the first halves their number."""
        steps = self.num_frames - self.num_predicted
        for _ in self.widths[1:]:
            steps = -(-steps // 2)
        return Grid(steps, self.size // self.stride, self.size // self.stride)


class FutureDecoder(nn.Module):
    """Frames from the last stage's features: two convolutions in space, then each position paints its square."""

    def __init__(self, config: FutureFramesConfig) -> None:
        super().__init__()
        self.grid, self.stride, self.count = config.grid, config.stride, config.num_predicted
        width = config.decoder_width
        self.mix = nn.Conv2d(self.grid.t * config.widths[-1], width, 3, padding=1)
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.paint = nn.Conv2d(width, 3 * self.count * self.stride**2, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """``B N D -> B K 3 H W``, of all moments of a position at once."""
        t, h, w = self.grid
        x = rearrange(tokens, "b (t h w) d -> b (t d) h w", t=t, h=h, w=w)
        x = self.paint(F.relu(self.spread(F.relu(self.mix(x)))))
        return rearrange(x, "b (k c p q) h w -> b k c (h p) (w q)", k=self.count, c=3, p=self.stride, q=self.stride)


class FutureFrames(Objective):
    """Squared error of predicted frames. The encoder reads clips of any length; the decoder those that it is for."""

    def __init__(self, config: FutureFramesConfig) -> None:
        super().__init__()
        self.encoder = ResNet(config)
        self.decoder = FutureDecoder(config)
        self.num_seen = config.num_frames - config.num_predicted

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean squared error of all pixels (in 0..1) of the predicted frames.

        ``over_last_frame`` is that error divided by the one of repeating the last frame seen: below 1, something of
        what changes is predicted.
        """
        video = as_float(batch["video"])
        future = video[:, self.num_seen :]
        loss = F.mse_loss(self.predict(video[:, : self.num_seen]).float(), future)
        with torch.no_grad():
            repeated = F.mse_loss(video[:, self.num_seen - 1 : self.num_seen].expand_as(future), future)
        return Loss(loss, {"over_last_frame": loss.detach() / repeated.clamp(min=1e-8)})

    def predict(self, seen: Tensor) -> Tensor:
        """The frames that follow, ``B K 3 H W`` (not clamped to 0..1), from the first ones of a clip, ``B S 3 H W``.

        Raises:
            ValueError: these are not as many frames, or of another size, than the decoder was built for.
        """
        seen = as_float(seen)
        features = self.encoder(seen)
        if seen.shape[1] != self.num_seen or features.grid != self.decoder.grid:
            t, size = self.num_seen, self.decoder.grid.h * self.decoder.stride
            raise ValueError(f"expected {t} frames of {size} x {size} pixels, got video of {tuple(seen.shape)}")
        return seen[:, -1:] + self.decoder(features.tokens)

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; the decoder comes after its last."""
        prefix = "encoder."
        if name.startswith(prefix):
            return self.encoder.depth_of(name.removeprefix(prefix))
        return self.encoder.depth + 1


def tiny() -> Run:
    """Plain motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4, size=32, difficulty=0.0, plain=True),
            clip=Clip(num_frames=12, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=FutureFramesConfig(
            widths=(16, 32, 64), depths=(1, 1, 1), stem_width=12, num_frames=12, size=32, num_predicted=4
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(KNN(),),
    )


def small() -> Run:
    """For a few dozen to a few thousand videos on a CPU; ``recognition.r2plus1d:small`` starts from it."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=3, size=64, short_side=(64, 72)),
            augment=Augment(brightness=0.2, contrast=0.2),
            batch_size=16,
        ),
        objective=FutureFramesConfig(
            widths=(16, 32, 64, 128),
            depths=(1, 1, 1, 1),
            stem_width=16,
            subtract_mean_frame=True,
            num_frames=16,
            size=64,
            num_predicted=4,
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(2000)),
    )


def r2plus1d_18() -> Run:
    """R(2+1)D-18, for tens of thousands of videos on a GPU; ``recognition.r2plus1d:r2plus1d_18_k400`` starts from it.

    Sizes of its paper, and a length and rates of our own that were never tried at this size.
    """
    return Run(
        data=Data(
            clip=Clip(num_frames=24, stride=2, size=112, short_side=(128, 171)),
            augment=Augment(),
            batch_size=256,
            num_workers=10,
        ),
        objective=FutureFramesConfig(
            widths=(64, 128, 256, 512),
            depths=(2, 2, 2, 2),
            stem_width=45,
            num_frames=24,
            size=112,
            num_predicted=8,
            decoder_width=512,
        ),
        optim=AdamW(lr=1e-3, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Epochs(100), precision="bfloat16"),
    )
