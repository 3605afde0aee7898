"""Behaviour cloning and DAgger: a small network learns from an expert to act on the features of a frozen encoder.

An encoder that learnt without labels sees each frame; one layer's tokens are averaged and projected, beside the
body's state, and a network of three hidden layers names the action. Toto's experiments on robots (Rajasegaran et al.,
"An Empirical Study of Autoregressive Pre-training from Videos", 2025) after MVP (Xiao et al., "Masked Visual
Pre-training for Motor Control", 2022; Radosavovic et al., "Real-World Robot Learning with Masked Visual
Pre-training", CoRL 2022), with any encoder: of a run, or of VideoMAE's, ViT's or MAE's layout on the Hub.

    filmstrip train control.behaviour_cloning:table --objective.encoder-run runs/toto --out runs/cloned
    filmstrip eval runs/cloned --protocol success
    filmstrip dagger runs/cloned --rounds 3 --out runs/dagger

DAgger (Ross, Gordon & Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning", AISTATS 2011): the policy acts, the expert says what it would have done in every state that came about, and
a policy is trained anew on all that was gathered. ``filmstrip dagger`` does so on the tables of ``demonstrations``.

The network is MVP's: a projection of features and one of states to 128 numbers each, then 256, 128 and 64 with SELU,
orthogonal initial weights. MVP normalises a class token by its encoder's last norm; here the mean of a layer is
normalised, by its own mean and variance (``layer``) or each number by those of a batch (``batch``). The papers print
no loss, rate, batch, layer, horizon or state: the mean squared error of the next action, AdamW's 1e-3, the middle
layer, single frames and seven joints are ours. The paper's simulated tasks (PixMC, on Isaac Gym) are not here:
pushing on a table stands for them. ``frozen`` off trains the encoder too, from pixels or from where its run ended.
Demonstrations of robots are read from LeRobot's layouts and DROID's (``docs/data.md``).

The paper reports (Franka arm, picking a cube, 240 demonstrations, 16 trials): MVP 75%, Toto-base 63%; that is 12 and
10 of 16, whose exact 95% intervals are 48 to 93 and 35 to 85%. In simulation, with DAgger, Toto learns faster than
MAE on four tasks (plots).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Bounds, Count, CountOrZero, NotEmpty
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.synthetic.demonstrations import Demonstrations, TableTask
from filmstrip.errors import UserError
from filmstrip.evals.success import Success
from filmstrip.inference import encoder_of
from filmstrip.objectives.actions import with_sizes_of_actions
from filmstrip.objectives.config import FrozenNetworksConfig, FrozenPart, ObjectiveConfig
from filmstrip.objectives.teachers import ImageTransformerConfig
from filmstrip.protocols import Batch, Features, Loss, Objective, as_float
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

FeatureNorm = Literal["none", "layer", "batch"]


@dataclass(frozen=True, kw_only=True)
class BehaviourCloningConfig(FrozenNetworksConfig):
    """A frozen encoder, and the network that acts on its features."""

    encoder: ObjectiveConfig
    """Method whose encoder sees the frames; replaced by that of ``encoder_run``, where one is named."""
    encoder_run: str | None = None
    """Run, or model of the Hub or in its layout (VideoMAE, ViT, MAE), that the encoder is."""
    untrained_encoders: bool = field(default=False, metadata=FREE)
    """Whether a frozen encoder may be untrained where no run is named: to try things out."""
    frozen: bool = True
    """Whether the encoder stays as it is; otherwise it is trained with the policy, from pixels if no run is named."""
    layer: Annotated[int, Bounds()] | None = None
    """Index of the block whose tokens are averaged, from 0, or from the last one back if negative; by default the
    encoder's own summary of a frame, after its last norm."""
    norm: FeatureNorm = "layer"
    """Normalisation of a frame's features: none, by their own mean and variance, or each by those of a batch."""
    feature_dim: Count = 128
    """Width of the projections of features and of states."""
    hidden: Annotated[tuple[Count, ...], NotEmpty] = (256, 128, 64)
    """Widths of the hidden layers."""
    action_dim: CountOrZero = 0
    """Values of an action; zero until the data determine it."""
    state_dim: CountOrZero = 0
    """Values of the body's state beside each frame, such as where a gripper is; zero for none."""

    def bind(self, info: DataInfo) -> BehaviourCloningConfig:
        """Take the sizes of actions and states from the data, where they are not set.

        Raises:
            UserError: the videos have no actions, or others than vectors, or their sizes are not those that are set.
        """
        return with_sizes_of_actions(self, info, "a policy learns from")

    def frozen_networks(self) -> tuple[str, ...]:
        """The encoder, unless it is trained from scratch."""
        return ("encoder",) if self.frozen or self.encoder_run is not None else ()

    def part_of(self, name: str) -> str:
        """The encoder itself, behind what shows it frames."""
        return "encoder.encoder"

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder, if it is frozen; acting needs it, too."""
        return super().frozen_parts() if self.frozen else {}

    def build(self) -> BehaviourCloning:
        """Build the networks with fresh weights.

        Raises:
            UserError: the size of actions is unknown, or there is no encoder or no such layer.
        """
        if not self.action_dim:
            raise UserError("objective.action_dim is not set: the data determine it, or set it to an action's values")
        return BehaviourCloning(self)


class FrameEncoder(nn.Module):
    """Any encoder, shown single frames: a clip of one where it takes such, otherwise a clip that stands still."""

    def __init__(self, config: BehaviourCloningConfig) -> None:
        super().__init__()
        self.encoder = encoder_of(config.encoder.build())
        self.width = self.encoder.width
        self.layer, self.frozen = config.layer, config.frozen
        depth = getattr(self.encoder, "depth", 0)
        if self.layer is not None and not -depth <= self.layer < depth:
            raise UserError(f"objective.layer is {self.layer}, and {type(self.encoder).__name__} has {depth} layers")
        any_grid = getattr(self.encoder, "any_grid", False)
        alone = any_grid or isinstance(config.encoder, ImageTransformerConfig)
        tubelet = getattr(self.encoder, "patch_size", (1,))[0]
        self.num_frames: int = tubelet if alone else getattr(config.encoder, "num_frames", 1)
        self.size: int | None = None if any_grid else getattr(config.encoder, "size", None)
        if self.frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As any module, but what is frozen stays in evaluation."""
        return super().train(mode and not self.frozen)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """The encoder's own features of ``B T C H W`` video."""
        return self.encoder(video, layers=layers)

    def frames(self, video: Tensor) -> Tensor:
        """One vector for each frame of ``B T C H W`` video, ``B T D`` float32."""
        alone = rearrange(video, "b t c h w -> (b t) c h w")
        if self.size not in (None, video.shape[-1]):
            alone = F.interpolate(as_float(alone), size=(self.size,) * 2, mode="bilinear", antialias=True)
        clips = repeat(alone, "n c h w -> n t c h w", t=self.num_frames)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            said = self.encoder(clips, layers=self.layer is not None)
            vectors = said.pooled() if self.layer is None else said.layers[self.layer].mean(dim=1)
        return rearrange(vectors.float(), "(b t) d -> b t d", t=video.shape[1])


class PolicyHead(nn.Module):
    """MVP's actor: features and states, each projected, then hidden layers with SELU, then the action."""

    def __init__(self, config: BehaviourCloningConfig, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.feature_dim)
        self.state = nn.Linear(config.state_dim, config.feature_dim) if config.state_dim else None
        sizes = (config.feature_dim * (1 + bool(config.state_dim)), *config.hidden)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [_linear(before, after, math.sqrt(2)), nn.SELU()]
        self.actor = nn.Sequential(*layers, _linear(sizes[-1], config.action_dim, 0.01))

    def forward(self, features: Tensor, state: Tensor | None) -> Tensor:
        """Actions ``... A`` from features ``... D`` and states ``... S``."""
        seen = [self.project(features)]
        if self.state is not None:
            assert state is not None, "it was checked"
            seen.append(self.state(state))
        return self.actor(torch.cat(seen, dim=-1))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if not layer.weight.is_meta:
        nn.init.orthogonal_(layer.weight, gain)
    return layer


class BehaviourCloning(Objective):
    """The error of a policy's actions on what an expert did, or would have done."""

    def __init__(self, config: BehaviourCloningConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config)
        self.norm: nn.Module = {
            "none": nn.Identity(),
            "layer": nn.LayerNorm(self.encoder.width, elementwise_affine=False),
            "batch": _BatchNorm(self.encoder.width, affine=False),
        }[config.norm]
        self.head = PolicyHead(config, self.encoder.width)
        self.action_dim, self.state_dim = config.action_dim, config.state_dim
        self.requires = ("video", "action", *(("state",) if config.state_dim else ()))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of the frames of a batch of clips; see :meth:`loss_of`.

        An expert's actions count where batches have them; otherwise those that were taken after each frame, which are
        not known of the last one.
        """
        video, state, wanted = batch["video"], batch.get("state"), batch.get("expert")
        if wanted is None:
            if video.shape[1] < 2:
                raise UserError(
                    "the action after a frame comes with the next one: set --data.clip.num-frames to 2 or more"
                )
            video, state = video[:, :-1], None if state is None else state[:, :-1]
            wanted = batch["action"][:, 1:]
        return self.loss_of(self.encoder.frames(video), state, wanted)

    def loss_of(self, features: Tensor, state: Tensor | None, wanted: Tensor) -> Loss:
        """Mean squared error of the actions at frames with these features (``B T D``), states and wanted actions."""
        error = self.head(self.norm(features), state).float() - wanted
        return Loss(error.square().mean(), {"error": error.detach().abs().mean()})

    def act(self, frame: Tensor, state: Tensor | None = None) -> Tensor:
        """The action to take now; see :class:`~filmstrip.protocols.Policy`.

        Raises:
            UserError: a state is missing, or of another size.
        """
        if self.state_dim and (state is None or state.shape != (frame.shape[0], self.state_dim)):
            given = "none was given" if state is None else f"{tuple(state.shape)} were given"
            raise UserError(f"this policy needs a state of {self.state_dim} numbers beside the image, and {given}")
        features = self.encoder.frames(frame[:, None])
        return self.head(self.norm(features), state[:, None] if self.state_dim and state is not None else None)[:, 0]

    def depth_of(self, name: str) -> int:
        """The encoder as one layer, then the policy."""
        return 0 if name.startswith("encoder.") else 1


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """``... D``."""
        return super().forward(x.flatten(0, -2)).view_as(x)


def tiny() -> Run:
    """Pushing at 32 x 32 pixels, above an untrained image transformer; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Demonstrations(task=TableTask(steps=12), num_train=24, num_test=4, size=32),
            reads=Clips(states="gripper", expert="expert"),
            clip=Clip(num_frames=4, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=BehaviourCloningConfig(
            encoder=ImageTransformerConfig(
                width=48, depth=2, num_heads=2, num_frames=1, size=32, patch_size=8, linear_init="glorot"
            ),
            untrained_encoders=True,
            norm="batch",
            action_dim=2,
            state_dim=2,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(Success(episodes=4),),
    )


def table() -> Run:
    """Pushing a thing to the middle of a table, 32 x 32 pixels: 100 demonstrations, above the encoder of
    ``--objective.encoder-run``."""
    run = tiny()
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=Demonstrations(size=32),
            clip=Clip(num_frames=8, stride=1, size=32, short_side=(32, 32)),
            batch_size=32,
        ),
        objective=replace(
            run.objective,
            encoder=replace(
                find("pretraining.toto:tiny_patches").objective,
                num_frames=2,
                size=32,
                patch_size=8,
                width=64,
                depth=4,
                num_heads=2,
                mlp_dim=192,
            ),
            untrained_encoders=False,
            layer=-1,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.01, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Steps(600)),
        evals=(Success(),),
    )


def table_pixels() -> Run:
    """The same from pixels: the encoder is trained with the policy, on the demonstrations alone."""
    run = table()
    return replace(run, objective=replace(run.objective, frozen=False))


def _franka(encoder: ObjectiveConfig, layer: int | None, size: int) -> Run:
    """A real Franka arm of seven joints, 240 demonstrations (``--data``, in LeRobot's layout or as videos with
    actions)."""
    return Run(
        data=Data(
            reads=Clips(states="observation.state"),
            clip=Clip(num_frames=8, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
            num_workers=8,
        ),
        objective=BehaviourCloningConfig(encoder=encoder, layer=layer, action_dim=7, state_dim=7),
        optim=AdamW(lr=1e-3, weight_decay=0.01, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Steps(20_000), precision="bfloat16"),
    )


def toto_base_franka() -> Run:
    """Toto-base, frozen: the middle one of its twelve layers, at 128 x 128 pixels."""
    return _franka(find("pretraining.toto:base").objective, layer=5, size=128)


def mvp_base_franka() -> Run:
    """MVP's baseline: an image transformer (ViT-B/16) that learnt by MAE, its last layer's mean, 224 x 224 pixels.

    ``--objective.encoder-run`` names MAE's weights on the Hub or in its layout.
    """
    encoder = ImageTransformerConfig(width=768, depth=12, num_heads=12, num_frames=1, size=224, patch_size=16)
    return _franka(encoder, layer=None, size=224)
