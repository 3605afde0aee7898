"""V-JEPA's predictor and its loss."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Ascending, Count, CountOrZero, NotEmpty, PositiveShare, Rate, Share, Weight
from filmstrip.errors import UserError
from filmstrip.models.vjepa import (
    IMAGE_VECTOR_STD,
    Positions,
    VJEPAArchitecture,
    VJEPAEncoder,
    blocks_of,
    initialise,
)
from filmstrip.nn.block import run_blocks
from filmstrip.nn.patches import take
from filmstrip.nn.rotary import grid_positions
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Grid, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.systems.pretraining.vjepa.masks import Blocks


@dataclass(frozen=True, kw_only=True)
class VJEPAConfig(VJEPAArchitecture, ObjectiveConfig):
    """An encoder, its momentum teacher, a narrower predictor, and how positions are masked."""

    predictor_width: Count = 384
    predictor_depth: Count = 12
    predictor_num_heads: Count = 12
    num_blocks: Annotated[tuple[Count, ...], NotEmpty] = (8, 2)
    """Number of blocks of each type of mask; every clip is masked in all of these ways."""
    block_scales: Annotated[tuple[PositiveShare, ...], NotEmpty] = (0.15, 0.7)
    """Share of a frame that one block covers, of each type of mask."""
    block_aspect: Annotated[tuple[Rate, Rate], Ascending] = (0.75, 1.5)
    """Range of a block's height over its width."""
    num_mask_tokens: Count = 2
    """Number of learnt mask tokens in the predictor; those that no mask uses are never trained."""
    shared_mask_token: bool = False
    """Whether all types of masks use the first mask token; otherwise each has its own."""
    context_weight: Weight = 0.0
    """Weight of the loss at visible positions, whose features are predicted too (V-JEPA 2.1); zero for none."""
    context_warmup: Annotated[tuple[CountOrZero, CountOrZero], Ascending] = (0, 0)
    """Steps between which that weight rises linearly from zero."""
    context_by_distance: bool = False
    """Whether the loss at a visible position is divided by the root of its distance to the nearest masked one."""
    image_weight: Share = 0.0
    """Share of the loss of images, one frame of each clip, in the whole loss; needs ``image_tokens``."""
    image_num_blocks: Annotated[tuple[Count, ...], NotEmpty] = (10,)
    """Number of blocks of each type of mask of an image."""
    image_block_scales: Annotated[tuple[PositiveShare, ...], NotEmpty] = (0.15,)
    """Share of an image that one block covers, of each type of mask."""
    momentum: Share = 0.998
    """Initial momentum of the teacher."""
    momentum_end: Share = 1.0
    """Final momentum, approached linearly."""
    momentum_steps: Count = 100_000
    """Number of steps until the final momentum."""

    def build(self) -> VJEPA:
        """Build the networks with fresh weights.

        Raises:
            UserError: types of masks, their blocks and their tokens do not go together, the layers of features are no
                layers of this network, or there is a loss of images and no image tokens.
        """
        self.check_layers()
        types = self._types_of(self.num_blocks, self.block_scales, "")
        if self.image_weight:
            types = max(types, self._types_of(self.image_num_blocks, self.image_block_scales, "image_"))
        if not self.shared_mask_token and self.num_mask_tokens < types:
            raise UserError(
                f"{types} types of masks need as many mask tokens, got {self.num_mask_tokens}: raise num_mask_tokens "
                "or set shared_mask_token"
            )
        if self.image_weight and not self.image_tokens:
            raise UserError(
                f"image_weight {self.image_weight:g} needs image_tokens: an image has no tubelets of "
                f"{self.patch_size[0]} frames"
            )
        return VJEPA(self)

    @staticmethod
    def _types_of(numbers: tuple[int, ...], scales: tuple[float, ...], prefix: str) -> int:
        if len(numbers) != len(scales):
            raise UserError(
                f"{prefix}num_blocks has {len(numbers)} entries and {prefix}block_scales {len(scales)}: give one of "
                "each a mask"
            )
        return len(numbers)


class Predictor(nn.Module):
    """Predicts the features of masked positions from those of visible ones, by a narrow transformer."""

    def __init__(self, config: VJEPAConfig, grid: Grid) -> None:
        super().__init__()
        width, num_heads = config.predictor_width, config.predictor_num_heads
        features = config.feature_width
        if features == config.width:
            self.project: nn.Module = nn.Linear(config.width, width)
        else:
            self.project = nn.Sequential(nn.Linear(features, config.width), nn.GELU(), nn.Linear(config.width, width))
        tokens = (nn.Parameter(torch.zeros(1, 1, width)) for _ in range(config.num_mask_tokens))
        self.mask_tokens = nn.ParameterList(tokens)
        for token in self.mask_tokens[1 if config.shared_mask_token else len(config.num_blocks) :]:
            token.requires_grad_(False)
        self.positions = Positions(config.positions, grid, width, num_heads, config.position_range)
        self.blocks = blocks_of(config.positions, config.predictor_depth, width, num_heads, 4.0)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, features)
        self.context_head = nn.Linear(width, features) if config.context_weight else None
        self.has_images = config.image_tokens
        if config.image_tokens:
            self.image_vector = nn.Parameter(torch.randn(1, 1, width) * IMAGE_VECTOR_STD)
            self.video_vector = nn.Parameter(torch.randn(1, 1, width) * IMAGE_VECTOR_STD)
        initialise(self, config.linear_init)

    def forward(
        self, context: Tensor, grid: Grid, visible: Tensor, masked: Tensor, token: int, image: bool = False
    ) -> Tensor:
        """Features ``B M D`` at ``masked`` from features ``B V D`` at ``visible``, with a mask token by its index.

        ``image``: whether these are positions of an image.
        """
        return self._masked(self._run(context, grid, visible, masked, token, image), visible)

    def with_context(
        self, context: Tensor, grid: Grid, visible: Tensor, masked: Tensor, token: int, image: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The same, and the features ``B V D`` that are predicted at ``visible`` itself."""
        tokens = self._run(context, grid, visible, masked, token, image)
        return self._masked(tokens, visible), self.context_head(self.norm(tokens[:, : visible.shape[1]]))

    def _masked(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return self.head(self.norm(tokens[:, visible.shape[1] :]))

    def _run(self, context: Tensor, grid: Grid, visible: Tensor, masked: Tensor, token: int, image: bool) -> Tensor:
        seen = self.project(context)
        wanted = self.mask_tokens[token].to(seen.dtype).expand(*masked.shape, -1)
        tokens = torch.cat([seen, wanted], dim=1)
        if self.has_images:
            tokens = tokens + (self.image_vector if image else self.video_vector)
        tokens, where = self.positions(tokens, grid, torch.cat([visible, masked], dim=1))
        return run_blocks(self.blocks, tokens, False, *where)[0]


class VJEPA(Objective):
    """A student sees the visible positions of a clip; a predictor makes of them the teacher's features elsewhere."""

    requires = ("video", "seed")
    starts_whole = True

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        self.student = VJEPAEncoder(config)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.predictor = Predictor(config, self.student.grid)
        self.shared_mask_token = config.shared_mask_token
        self.momentum = config.momentum, config.momentum_end, config.momentum_steps
        self.mask_types = _mask_types(self.student.grid, config.num_blocks, config.block_scales, config.block_aspect)
        self.counts = [blocks.counts() for blocks in self.mask_types]
        self.image_weight = config.image_weight
        self.image_mask_types: list[Blocks] = []
        if config.image_tokens:
            image = self.student.grid._replace(t=1)
            self.image_mask_types = _mask_types(
                image, config.image_num_blocks, config.image_block_scales, config.block_aspect, first=16
            )
        self.image_counts = [blocks.counts() for blocks in self.image_mask_types]
        self.context_by_distance = config.context_by_distance
        self.context = config.context_weight, *config.context_warmup
        if config.context_weight:
            self.register_buffer("context_share", torch.tensor(self.context_weight_at(1)))

    @property
    def encoder(self) -> VJEPAEncoder:
        """The network whose features count: the teacher, as published."""
        return self.teacher

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean absolute error of the predicted features, the mean over the types of masks; of visible positions and
        of images, too, where these have a weight. A batch of single frames is one of images.

        The standard deviations over clips and positions of targets and predictions, means over channels, show a
        collapse: they go to zero when all positions of all clips have the same features.
        """
        video, seeds = batch["video"], batch["seed"]
        loss = self._loss(video, seeds)
        if not self.image_weight or video.shape[1] == 1:
            return loss
        moment = (uniform(seeds, 1, "vjepa.image")[:, 0] * video.shape[1]).long()
        images = self._loss(video[torch.arange(len(moment), device=video.device), moment][:, None], seeds)
        total = (1 - self.image_weight) * loss.total + self.image_weight * images.total
        return Loss(total, {**loss.metrics, "loss_image": images.total.detach()})

    def _loss(self, video: Tensor, seeds: Tensor) -> Loss:
        """The loss of videos alone, or of images (``B 1 C H W``) alone."""
        targets, total, deviation, metrics = self.targets(video), 0.0, 0.0, {}
        masks = self.draw_masks(seeds, self.is_image(video))
        for index, (visible, masked) in enumerate(masks):
            if self.predictor.context_head is None:
                predicted = self.predict(video, visible, masked, index).float()
            else:
                predicted, context = self.predict_both(video, visible, masked, index)
                error = (context.float() - take(targets, visible)).abs()
                if self.context_by_distance:
                    steps = 1 if self.is_image(video) else self.student.grid.t
                    error = error / self.distances(visible, masked, steps).sqrt()[..., None]
                seen, predicted = error.mean(), predicted.float()
                total = total + self.context_share * seen / len(masks)
                metrics["loss_context"] = metrics.get("loss_context", 0.0) + seen.detach() / len(masks)
            loss = F.l1_loss(predicted, take(targets, masked))
            total = total + loss / len(masks)
            deviation = deviation + spread(predicted.detach()) / len(masks)
            metrics[f"loss_mask_{index}"] = loss.detach()
        return Loss(total, {**metrics, "target_std": spread(targets), "prediction_std": deviation})

    def is_image(self, video: Tensor) -> bool:
        """Whether clips are images, single frames, to this network."""
        return self.student.has_images and video.shape[1] == 1

    def draw_masks(self, seeds: Tensor, image: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Visible and masked positions, ``B V`` and ``B M``, of each type of mask, from each clip's seed (``B``)."""
        types, counts = (self.image_mask_types, self.image_counts) if image else (self.mask_types, self.counts)
        return [blocks.choose(seeds, count) for blocks, count in zip(types, counts)]

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """The teacher's features of whole clips, each layer's normalised token by token: ``B N D``, float32."""
        levels = rearrange(self.teacher.features(video)[0].float(), "b n (l d) -> b n l d", d=self.teacher.width)
        return F.layer_norm(levels, levels.shape[-1:]).flatten(2)

    def predict(self, video: Tensor, visible: Tensor, masked: Tensor, mask_type: int = 0) -> Tensor:
        """Features ``B M D`` at ``masked`` positions of clips of which only those at ``visible`` are seen."""
        seen, grid = self.student.features(video, visible)
        return self.predictor(seen, grid, visible, masked, self._token(mask_type), self.is_image(video))

    def predict_both(
        self, video: Tensor, visible: Tensor, masked: Tensor, mask_type: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The same, and the features that are predicted at ``visible`` itself, ``B V D``."""
        seen, grid = self.student.features(video, visible)
        return self.predictor.with_context(seen, grid, visible, masked, self._token(mask_type), self.is_image(video))

    def _token(self, mask_type: int) -> int:
        return 0 if self.shared_mask_token else mask_type

    def distances(self, visible: Tensor, masked: Tensor, num_steps: int) -> Tensor:
        """Distance of each visible position to the nearest masked one, in positions: ``B V`` float32.

        Masks reach through all ``num_steps`` time steps, so that the nearest position is one of the same step.
        """
        frame = self.student.grid._replace(t=1)
        places = grid_positions(frame, visible.device)[:, 1:].float()
        size = frame.h * frame.w
        hidden = places[masked[:, : masked.shape[1] // num_steps]]  # those of the first step
        return torch.cdist(places[visible % size], hidden).amin(dim=2)

    def momentum_at(self, step: int) -> float:
        """The momentum of the update after a step, counted from 1."""
        start, end, steps = self.momentum
        return start + (end - start) * min((step - 1) / steps, 1.0)

    def context_weight_at(self, step: int) -> float:
        """The weight of the loss at visible positions in a step, counted from 1."""
        weight, start, end = self.context
        done = step - 1
        return weight if done >= end else weight * max(0.0, (done - start) / (end - start))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher: ``teacher <- momentum * teacher + (1 - momentum) * student``."""
        teacher, student = list(self.teacher.parameters()), list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.momentum_at(step))
        if self.predictor.context_head is not None:
            self.context_share.fill_(self.context_weight_at(step + 1))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the student's, then the predictor."""
        part, _, rest = name.partition(".")
        return self.student.depth + 2 if part == "predictor" else self.student.depth_of(rest)


def _mask_types(
    grid: Grid, numbers: tuple[int, ...], scales: tuple[float, ...], aspect: tuple[float, float], first: int = 0
) -> list[Blocks]:
    """The types of masks of a grid; ``first`` numbers the first one."""
    return [
        Blocks(grid=grid, number=number, scale=scale, aspect=aspect, index=index)
        for index, (number, scale) in enumerate(zip(numbers, scales), first)
    ]


def spread(features: Tensor) -> Tensor:
    """The standard deviation of features ``B N D`` over clips and positions, mean over channels."""
    return features.flatten(0, 1).std(dim=0, correction=0).mean()
