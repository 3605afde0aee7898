"""S5: a mask generator selects the tokens of a long video that structured state-space layers (S4) read.

A transformer sees each frame; a small network, which reads what a slowly moving copy of the first S4 layer makes of
all tokens, keeps half of them; S4 layers, whose cost grows with length and not its square, read those in order. The
network is :mod:`filmstrip.models.selective_s4`. Wang et al., "Selective Structured State-Spaces for Long-Form Video
Understanding", CVPR 2023 (its S5 is "selective S4", not the "simplified state space" of Smith et al.).

    filmstrip train recognition.s5:large_coin --init hf:google/vit-large-patch16-224-in21k --data.path PATH

What is ours: of the paper its abstract is among our sources, and no code of it is public. Widths, layers, state,
dropout and training are those of the public code of ViS4mer (Islam & Bertasius, ECCV 2022), on which it builds:
tokens of 1024 channels, 49 a second over 64 seconds, three S4 layers. The abstract does not state how many tokens
are kept (here half), the momentum, the mask generator's layers (here two), and how a choice is learnt (here with
Gumbel noise in training, and gradients of gates that let every token count a little). ViS4mer's tokens for COIN
and Breakfast are those of a frozen Video Swin-B; here they are the means of 2 x 2 patches of a ViT-L/16, frozen by
the presets' rates (``--init`` has to bring its weights); a cosine replaces a learning rate that falls on plateaus.

The paper reports up to 9.6% more accuracy than S4 on LVU, COIN and Breakfast, with 23% less memory.
``filmstrip claims s5_selection`` re-runs the choice of tokens small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.selective_s4 import SelectiveS4Architecture, SelectiveS4Encoder, is_dynamics
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW


class S5(Classification):
    """Classification of the mean of the last layer's tokens; training draws the selection from each clip's seed."""

    requires = ("video", "label", "seed")

    def __init__(self, config: S5Config) -> None:
        super().__init__(SelectiveS4Encoder(config), config)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of the batch; also logs its top-1 accuracy."""
        pooled = self.encoder(batch["video"], seeds=batch["seed"] if self.training else None).pooled()
        return self.compare(self.head(self.dropout(self.norm(pooled))).float(), batch["label"])

    def after_step(self, step: int) -> None:
        """Move the copy that the mask generator reads."""
        self.encoder.video.move()

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Biases and scales, as everywhere, and the dynamics of state spaces."""
        return super().no_decay(name, param) or is_dynamics(name)

    def select(self, video: Tensor) -> Tensor:
        """Indices of the tokens that are kept of ``B T C H W`` video, ``B K``, ascending: row-major in each frame."""
        video_layers = self.encoder.video
        return video_layers.chosen(video_layers.scores(self.encoder.tokens(video)), None)


@dataclass(frozen=True, kw_only=True)
class S5Config(SelectiveS4Architecture, ClassificationConfig):
    """A transformer of frames, the selection, S4 layers, and a linear classifier."""

    def build(self) -> S5:
        """Build the network with fresh weights.

        Raises:
            UserError: sizes do not go together.
        """
        return S5(self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=S5Config(
            width=64,
            depth=1,
            num_heads=2,
            video_depth=2,
            state=16,
            num_frames=8,
            size=64,
            patch_size=16,
            linear_init="glorot",
            num_classes=8,
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


LARGE = S5Config(
    width=1024,
    depth=24,
    num_heads=16,
    frame_pool=2,
    video_depth=3,
    s4_dropout=0.2,
    num_frames=64,
    size=224,
    patch_size=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    num_classes=180,
)


def _long(network: S5Config) -> Run:
    """64 frames spread over the whole video."""
    return Run(
        data=Data(
            clip=Clip(num_frames=64, sampling="uniform", short_side=(224, 256)),
            augment=Augment(mirror=0.0),
            batch_size=16,
            num_workers=16,
        ),
        objective=network,
        optim=AdamW(lr=1e-3, weight_decay=0.01, rates=((r"encoder\.frames", 0.0),)),
        train=Loop(length=Epochs(500), precision="bfloat16"),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def large_coin() -> Run:
    """S5 on ViT-L/16 for the 180 tasks of COIN."""
    return _long(LARGE)


def large_breakfast() -> Run:
    """S5 on ViT-L/16 for the 10 activities of Breakfast."""
    return _long(replace(LARGE, num_classes=10))
