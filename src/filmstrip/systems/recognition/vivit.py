"""ViViT: a clip's tubelets in a transformer, with four ways to tell space from time.

``joint``: every tubelet attends to every other; ``factorised_encoder``: frames apart, then their class tokens over
time; ``factorised``: each block attends within frames, then over time; ``factorised_heads``: half of the heads do the
one, half the other. Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021. ``base_k400_frozen`` is the recipe
of Gowda et al., "Optimizing ViViT Training: Time and Memory Reduction for Action Recognition", 2023: frames apart are
not trained, time starts from the image's last layers, and a compact adapter lies between.

    filmstrip train recognition.vivit:base_k400 --init hf:google/vit-base-patch16-224-in21k --data.path PATH
    filmstrip train recognition.vivit:base_k400_frozen --init hf:google/vit-base-patch16-224-in21k --data.path PATH

Where we deviate: colours are jittered one after another, without dropping colour; short sides of 256 to 340 pixels
stand for scales of 0.9 to 1.33. Of the frozen recipe only its abstract is at hand: the adapter here is one narrow
attention from a frame's class token to its tokens, and time's layers start as the image's last ones.

The lecture prints two costs for the factorised encoder; ours comes from counting. The paper reports for Kinetics-400
(top-1): L, factorised encoder, 128 frames, 81.7 from ImageNet-21K and 83.5 from JFT, H, 84.9; the recipe's abstract,
about half of the training cost for accuracies up to 1.79 higher. Measured here (width 384, 32 frames, two CPU cores,
``python claims/vivit_frozen_spatial.py``): freezing saves 60% of a step and 70% of its memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from filmstrip.bounds import Count, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.video_transformer import (
    FactorisedEncoder,
    FrameTransformer,
    RegionAdapter,
    SpaceTimeTransformer,
    TemporalTransformer,
    TubeletInit,
)
from filmstrip.nn.initialisation import LinearStart
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class ViViTConfig(ClassificationConfig):
    """The network's size and variant; a linear classifier on its class token, or mean token where it has none."""

    variant: Literal["joint", "factorised_encoder", "factorised", "factorised_heads"] = "joint"
    """The paper's models 1 to 4."""
    width: Count = 768
    depth: Count = 12
    num_heads: Count = 12
    temporal_depth: Count = 4
    """Layers over time, of the factorised encoder."""
    num_frames: Count = 32
    size: Count = 224
    patch_size: tuple[Count, Count, Count] = (2, 16, 16)
    """Of a tubelet."""
    tubelet_init: TubeletInit = "central_frame"
    """How an image's patch filter starts the tubelets': it sees the middle frame, or the mean of all."""
    frozen_frames: bool = False
    """Leave the factorised encoder's network of frames as it starts, and put the adapter between it and time."""
    adapter_heads: Count = 3
    """Of 64 channels each."""
    drop_path: ShareBelowOne = 0.0
    linear_start: LinearStart = "normal"
    """How linear layers start; ``glorot`` suits a narrow network that starts from nothing."""

    def encoder(self) -> SpaceTimeTransformer | FactorisedEncoder:
        """The network without its classifier.

        Raises:
            UserError: frames are to be frozen that are not apart.
        """
        if self.frozen_frames and self.variant != "factorised_encoder":
            raise UserError(f"only the factorised_encoder has frames of their own to freeze, not {self.variant}")
        sizes = {
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "num_frames": self.num_frames,
            "size": self.size,
            "patch_size": self.patch_size,
            "drop_path": self.drop_path,
            "tubelet_init": self.tubelet_init,
            "gelu": "tanh",  # as published
            "linear_start": self.linear_start,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        }
        if self.variant != "factorised_encoder":
            return SpaceTimeTransformer(self.variant, **sizes)
        frames = FrameTransformer(**sizes)
        temporal = TemporalTransformer(
            frames.grid.t,
            width=self.width,
            depth=self.temporal_depth,
            num_heads=self.num_heads,
            drop_path=self.drop_path,
            gelu="tanh",
            linear_start=self.linear_start,
        )
        adapter = RegionAdapter(self.width, self.adapter_heads, 64) if self.frozen_frames else None
        return FactorisedEncoder(frames, temporal, frozen=self.frozen_frames, adapter=adapter)

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(self.encoder(), self.num_classes, label_smoothing=self.label_smoothing)


def tiny() -> Run:
    """Joint attention on eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=ViViTConfig(
            width=64,
            depth=3,
            num_heads=2,
            temporal_depth=1,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
            linear_start="glorot",
            num_classes=8,
        ),
        optim=Optim(lr=1e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: ViViTConfig) -> Run:
    """Kinetics-400 from an image transformer of ImageNet-21K: 30 epochs of SGD, 4 clips x 3 crops in testing."""
    return Run(
        data=Data(
            clip=Clip(num_frames=network.num_frames, stride=2, short_side=(256, 340)),
            augment=Augment(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.2),
            batch_size=64,
            num_workers=10,
        ),
        objective=network,
        optim=Optim(name="sgd", lr=0.05, weight_decay=0.0, warmup=2.5 / 30),
        train=Loop(epochs=30, precision="bfloat16"),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


def base_k400() -> Run:
    """ViViT-B/16x2, joint attention: 89M parameters, 455 G multiply-adds."""
    return _k400(ViViTConfig())


def base_k400_encoder() -> Run:
    """ViViT-B/16x2, factorised encoder: 115M parameters, 284 G multiply-adds."""
    return _k400(ViViTConfig(variant="factorised_encoder"))


def base_k400_attention() -> Run:
    """ViViT-B/16x2, factorised self-attention: 117M parameters, 372 G multiply-adds."""
    return _k400(ViViTConfig(variant="factorised"))


def base_k400_heads() -> Run:
    """ViViT-B/16x2, factorised dot-product attention: 89M parameters, 277 G multiply-adds."""
    return _k400(ViViTConfig(variant="factorised_heads"))


def base_k400_frozen() -> Run:
    """ViViT-B/16x2, factorised encoder whose frames are not trained: 116M parameters, of which 30M learn."""
    return _k400(ViViTConfig(variant="factorised_encoder", frozen_frames=True))


def large_k400() -> Run:
    """ViViT-L/16x2, factorised encoder, 128 frames in one view: 355M parameters, 3980 G multiply-adds."""
    run = _k400(ViViTConfig(variant="factorised_encoder", width=1024, depth=24, num_heads=16, num_frames=128))
    return replace(run, optim=replace(run.optim, lr=0.1), evals=(MultiView(num_clips=1, num_crops=3),))


def tiny_frozen() -> Run:
    """The factorised encoder with frozen frames, as small as ``tiny``."""
    run = tiny()
    return replace(run, objective=replace(run.objective, variant="factorised_encoder", frozen_frames=True))
