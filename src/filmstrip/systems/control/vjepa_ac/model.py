"""The frozen encoder, the predictor that knows actions, and its two losses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.models.vjepa import Positions, VJEPAArchitecture, VJEPAEncoder, blocks_of, initialise
from filmstrip.models.vjepa_layouts import ac_layouts
from filmstrip.nn.block import run_blocks
from filmstrip.nn.masks import block_causal
from filmstrip.nn.rotary import grid_positions
from filmstrip.objectives.actions import with_sizes_of_actions
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.protocols import Batch, Grid, Layout, Loss, Objective
from filmstrip.settings import FREE
from filmstrip.systems.control.vjepa_ac.planning import CrossEntropy


@dataclass(frozen=True, kw_only=True)
class VJEPAACConfig(VJEPAArchitecture, ObjectiveConfig):
    """A frozen encoder of single frames, and a predictor of the next frame's features."""

    predictor_width: Count = 1024
    predictor_depth: Count = 24
    predictor_num_heads: Count = 16
    action_dim: CountOrZero = 0
    """Values of an action; zero until the data determine it."""
    state_dim: CountOrZero = 0
    """Values of the state beside each frame, such as where a gripper is; zero for none."""
    extrinsics_dim: CountOrZero = 0
    """Values of the camera's pose beside each frame; zero for none, as published."""
    rollout: Count = 2
    """Steps that the predictor goes on from its own predictions in training."""
    planner: CrossEntropy = field(default_factory=CrossEntropy, metadata=FREE)
    untrained_encoder: bool = field(default=False, metadata=FREE)
    """Whether the encoder may be untrained where no ``init`` is named: to try things out."""

    def needs_init(self) -> str | None:
        """An encoder, unless an untrained one is asked for."""
        if self.untrained_encoder:
            return None
        return (
            "the frozen encoder is untrained, and features of noise are nothing to predict: name a trained one "
            "(--init RUN, FILE or hf:OWNER/NAME), or ask for this (--objective.untrained-encoder)"
        )

    def bind(self, info: DataInfo) -> VJEPAACConfig:
        """Take the sizes of actions and states from the data, where they are not set.

        Raises:
            UserError: the videos have no actions, or others than vectors, or their sizes are not those that are set.
        """
        return with_sizes_of_actions(self, info, "the predictor needs")

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder."""
        return {"encoder": FrozenPart("init")}

    def build(self) -> VJEPAAC:
        """Build the networks with fresh weights.

        Raises:
            UserError: the size of actions is unknown, the layers of features are no layers of this network, or there
                are fewer frames than the rollout needs.
        """
        self.check_layers()
        if not self.action_dim:
            raise UserError("objective.action_dim is not set: the data determine it, or set it to an action's values")
        if self.num_frames <= self.rollout:
            raise UserError(
                f"a rollout of {self.rollout} steps needs clips of more frames, not {self.num_frames}: raise "
                "num_frames or lower rollout"
            )
        return VJEPAAC(self)


class FrameEncoder(VJEPAEncoder):
    """The frozen encoder; each frame is repeated to a tubelet of its own, so that it is seen alone."""

    def __init__(self, config: VJEPAACConfig) -> None:
        tubelet = config.patch_size[0]
        super().__init__(replace(config, num_frames=tubelet))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Does nothing: it stays in evaluation."""
        return super().train(False)

    def layouts(self) -> tuple[Layout, ...]:
        """Those of V-JEPA's trainings, of the Hub, and of this method's checkpoints."""
        return ac_layouts(self.patch_size, len(self.feature_layers))

    @torch.no_grad()
    def frames(self, video: Tensor) -> Tensor:
        """Features of each frame of ``B T C H W`` video, normalised token by token: ``B T N D``, float32."""
        tubelets = repeat(video, "b t c h w -> (b t) p c h w", p=self.patch_size[0])
        tokens = self(tubelets).tokens.float()
        return rearrange(F.layer_norm(tokens, tokens.shape[-1:]), "(b t) n d -> b t n d", t=video.shape[1])


class ActionPredictor(nn.Module):
    """Predicts each next frame's features from the frames, actions and states up to then."""

    def __init__(self, config: VJEPAACConfig, grid: Grid) -> None:
        super().__init__()
        width, num_heads = config.predictor_width, config.predictor_num_heads
        self.project = nn.Linear(config.width, width)
        self.action = nn.Linear(config.action_dim, width)
        self.state = nn.Linear(config.state_dim, width) if config.state_dim else None
        self.extrinsics = nn.Linear(config.extrinsics_dim, width) if config.extrinsics_dim else None
        self.grid = grid
        self.num_conditions = 1 + bool(config.state_dim) + bool(config.extrinsics_dim)
        # The pairs of V-JEPA 2's positions, as in its encoder; these blocks need rotary ones.
        kind = "rotary" if config.positions == "sincos" else config.positions
        self.positions = Positions(kind, grid, width, num_heads)
        self.blocks = blocks_of(kind, config.predictor_depth, width, num_heads, 4.0)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, config.width)
        self.mask = block_causal(self.num_conditions + grid.h * grid.w)
        initialise(self, config.linear_init)

    def forward(
        self,
        features: Tensor,
        action: Tensor,
        state: Tensor | None = None,
        extrinsics: Tensor | None = None,
    ) -> Tensor:
        """Features ``B T N D`` of the frames that follow each of ``B T N D``.

        ``action[:, t]`` (``B T A``) is taken after frame ``t``; ``state`` (``B T S``) and ``extrinsics`` (``B T E``)
        belong to frame ``t``. A frame attends to itself and to all before it, with their actions and states.
        """
        tokens = self.project(features)
        given = [(self.action, action), (self.state, state), (self.extrinsics, extrinsics)]
        conditions = [layer(value.to(tokens.dtype)) for layer, value in given if layer is not None]
        tokens = torch.cat([torch.stack(conditions, dim=2), tokens], dim=2)
        steps = tokens.shape[1]
        tokens, _ = run_blocks(
            self.blocks, rearrange(tokens, "b t n d -> b (t n) d"), False, self._angles(steps), self.mask
        )
        tokens = rearrange(tokens, "b (t n) d -> b t n d", t=steps)[:, :, self.num_conditions :]
        return self.head(self.norm(tokens))

    def _angles(self, steps: int) -> Tensor:
        """Rotary angles of ``steps`` frames: those of actions and states turn by their time alone."""
        grid = self.grid._replace(t=steps)
        places = rearrange(grid_positions(grid, self.head.weight.device).float(), "(t n) c -> t n c", t=steps)
        alone = places[:, :1].clone().expand(-1, self.num_conditions, -1)
        return self.positions.angles(torch.cat([alone, places], dim=1).flatten(0, 1), grid)


class VJEPAAC(Objective):
    """A world model in the features of a frozen encoder, and a planner in it."""

    starts_rest = True

    def __init__(self, config: VJEPAACConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config)
        self.predictor = ActionPredictor(config, self.encoder.grid._replace(t=1))
        self.rollout = config.rollout
        self.planner = config.planner
        self.action_dim = config.action_dim
        self.state_dim = config.state_dim
        keys = {"state": config.state_dim, "extrinsics": config.extrinsics_dim}
        self.requires = ("video", "action", *(key for key, size in keys.items() if size))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of the features of a batch's frames; see :meth:`loss_of`."""
        features = self.encoder.frames(batch["video"])
        return self.loss_of(features, batch["action"], batch.get("state"), batch.get("extrinsics"))

    def loss_of(
        self, features: Tensor, action: Tensor, state: Tensor | None = None, extrinsics: Tensor | None = None
    ) -> Loss:
        """Mean absolute error of the next frames' features, given the true ones and, added to it, in a rollout.

        From features ``B T N D`` of frames with the actions that led to them (``B T A``), their states and the
        camera's poses. ``copy`` is the error of taking each frame's features for the next one's: a predictor that
        learnt something is below it.
        """
        known = [None if value is None else value[:, :-1] for value in (state, extrinsics)]
        action = action[:, 1:]
        forced = self.next(features[:, :-1], action, *known)
        rolled = self._rolled(features, forced, action, known)
        errors = F.l1_loss(forced, features[:, 1:]), F.l1_loss(rolled, features[:, 1 : 1 + self.rollout])
        copied = F.l1_loss(features[:, :-1], features[:, 1:])
        metrics = {"teacher_forcing": errors[0].detach(), "rollout": errors[1].detach(), "copy": copied}
        return Loss(errors[0] + errors[1], metrics)

    def next(
        self, features: Tensor, action: Tensor, state: Tensor | None = None, extrinsics: Tensor | None = None
    ) -> Tensor:
        """Predictions of :class:`ActionPredictor`, normalised token by token as the features are, float32."""
        predicted = self.predictor(features, action, state, extrinsics).float()
        return F.layer_norm(predicted, predicted.shape[-1:])

    def _rolled(self, features: Tensor, forced: Tensor, action: Tensor, known: list[Tensor | None]) -> Tensor:
        """``rollout`` frames from the first one on, each predicted from the predictions before it: ``B R N D``.

        The first of them is that of teacher forcing, which saw the same.
        """
        seen = torch.cat([features[:, :1], forced[:, :1]], dim=1)
        for steps in range(2, self.rollout + 1):
            upto = [None if value is None else value[:, :steps] for value in known]
            following = self.next(seen, action[:, :steps], *upto)[:, -1:]
            seen = torch.cat([seen, following], dim=1)
        return seen[:, 1:]

    @torch.no_grad()
    def plan_actions(
        self, frame: Tensor, goal: Tensor, state: Tensor | None = None, *, seed: int, horizon: int | None = None
    ) -> Tensor:
        """Actions that lead from ``frame`` to ``goal``; see :class:`~filmstrip.protocols.GoalPlanner`.

        Raises:
            UserError: a state is missing, or of another size.
        """
        if self.state_dim and (state is None or state.shape != (frame.shape[0], self.state_dim)):
            given = "none was given" if state is None else f"{tuple(state.shape)} were given"
            raise UserError(
                f"this model plans from a state of {self.state_dim} numbers beside the image, and {given}"
            )
        begin, end = (self.encoder.frames(image[:, None]) for image in (frame, goal))
        planner = self.planner if horizon is None else replace(self.planner, horizon=horizon)
        return planner.plan(
            self.next,
            begin,
            end[:, 0],
            state if self.state_dim else None,
            action_dim=self.action_dim,
            seed=seed,
        )

    def depth_of(self, name: str) -> int:
        """The predictor's layers in order: what comes in, the blocks, what goes out."""
        if name.startswith("predictor.blocks."):
            return 1 + int(name.split(".")[2])
        inputs = ("predictor.project", "predictor.action", "predictor.state", "predictor.extrinsics")
        return 0 if name.startswith(inputs) else len(self.predictor.blocks) + 1
