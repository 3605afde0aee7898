"""VIOLET, the visual half: masked patches of a few frames are named by the codes that a discrete VAE has for them.

Frames whose patches of 32 x 32 pixels are blackened go through a video Swin and, with a class token for each frame,
through a transformer that text joins in the whole method; a small network then says the code of every masked patch.
Codes are those of a frozen tokenizer of images that sees the frames whole and small, one code for a patch. Fu et al.,
"VIOLET: End-to-End Video-Language Transformers with Masked Visual-token Modeling", 2021. The network is
:mod:`filmstrip.models.violet`, masks and targets are in :mod:`filmstrip.objectives.visual_tokens`; with text it is
``language.violet``.

    filmstrip train pretraining.violet:small_webvid --data.path PATH --objective.tokenizer-run RUN

Blocks of patches are masked, or those that the transformer attends to most (``masking``: half of the clips each). The
authors' files start it (``--init FILE``), their text left out.

Where we deviate: attended masking looks at visual tokens alone, for there is no text; frames are cropped square where
the paper pads them; the transformer's attention weights have no dropout.

The paper's results are of models of video and text (video question answering, retrieval); of the visual half alone it
states none. Measured here (``filmstrip claims violet_targets``, textures in noise, mean of three seeds): a linear
classifier names 68.4% of four kinds by features that codes taught, 55.4% where pixels did, and 38.5% at the start.
"""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.objectives.visual_tokens import VisualTokens, VisualTokensConfig
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant


class Violet(VisualTokens):
    """Masked visual-token modelling of video alone."""

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The cross-entropy of codes at masked patches; also logs how often the likeliest code is the right one."""
        masked = self.masks(batch["video"], batch["seed"])
        logits, flat = self.predict(batch["video"], masked), masked.flatten(1)
        loss, right = self.named(logits, self.target(batch["video"]), flat)
        return Loss(loss, {"top1": right, "masked": flat.float().mean()})


@dataclass(frozen=True, kw_only=True)
class VioletConfig(VisualTokensConfig):
    """Masked visual-token modelling of video alone."""

    def build(self) -> Violet:
        """Build the networks with fresh weights.

        Raises:
            UserError: frames are no multiple of patches, or the tokenizer has no code for each of these.
        """
        return Violet(self)


def tiny() -> Run:
    """Motions at 64 x 64 pixels, and a tokenizer of random weights: a run for use names a trained one."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=4, stride=4, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=VioletConfig(
            tokenizer=find("tokenizers.dvae:tiny").objective,
            untrained_tokenizer=True,
            num_frames=4,
            size=64,
            width=24,
            depths=(1, 1, 1),
            num_heads=(2, 2, 4),
            window=(2, 4, 4),
            patch_size=(2, 4, 4),
            linear_init="glorot",
            joint_depth=2,
            joint_num_heads=4,
            max_positions=16,
            max_frames=4,
        ),
        optim=AdamW(lr=1e-3, betas=(0.9, 0.98)),
        train=Loop(length=Steps(100)),
    )


def small_webvid() -> Run:
    """Swin-S and BERT's twelve layers on WebVid-2.5M and pictures of CC3M, 4 frames of a video; DALL-E's codes."""
    swin = find("recognition.video_swin:small_k400").objective
    names = ("width", "depths", "num_heads", "window", "patch_size")
    return Run(
        data=Data(
            clip=Clip(num_frames=4, sampling="segments", size=224, short_side=(224, 224)),
            augment=Augment(mirror=0.0),
            batch_size=48,
            num_workers=16,
        ),
        objective=VioletConfig(
            **{name: getattr(swin, name) for name in names},
            drop_path=0.2,
            tokenizer=find("tokenizers.dvae:dalle").objective,
            num_frames=4,
            size=224,
            joint_depth=12,
            joint_num_heads=12,
            joint_dropout=0.1,
        ),
        optim=AdamW(lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3, schedule=Constant()),
        train=Loop(length=Epochs(5), precision="bfloat16", clip_grad=None),
    )
