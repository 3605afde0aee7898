"""SCHEMA: a plan by way of its states, which language describes.

A language model told what the world looks like before and after each step. Features of start and goal are drawn to
the texts of their steps; one decoder fills in the states between, another the steps between the states, both looking
at all texts; a chain of the training set's steps has the last word (Viterbi).
Niu et al., "SCHEMA: State CHangEs MAtter for Procedure Planning in Instructional Videos", ICLR 2024.

    filmstrip train procedures.schema:niv --data FEATURES --data.reads.annotations ANNOTATIONS \
        --objective.texts niv_state_prompt_features.npy

``texts`` are the features of these texts, ``steps K D``: first half before, second half after the step. Without them
each text is a fixed random vector, and there is no language. ``--init FILE`` begins with the authors' released
weights of the same network.

Where we deviate: start and goal are one vector each, the mean of a clip's tokens; the chain counts which steps follow
which in the training windows as they are drawn (published: in whole videos, before training); the learning rate
follows a cosine (published: times 0.65 every 40 epochs). With VEDIT's blocks (``*_vedit``) what is to be decoded is
VEDIT's target branch, what is known and all texts its seen one, in one pass without noise: neither paper says more.

The paper reports success rate, mAcc and mIoU of 27.93, 41.64, 76.77 on NIV (T = 3), 23.26, 39.93, 76.75 (T = 4);
32.09, 49.84, 83.83 and 22.02, 45.33, 83.47 on COIN; 31.83, 57.31, 78.33 and 19.71, 51.85, 74.46 on CrossTask (VEDIT,
table 2; replicated there over ten runs: 26.66, 22.32; 26.38, 21.00; 30.57, 20.26 success). Its mIoU is that of the
bits of ids (``miou_of_ids`` of :mod:`filmstrip.evals.planning`).

Measured here: with the same weights, the losses are those of the public code to seven digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals.planning import Planning
from filmstrip.nn.attention import Attention
from filmstrip.nn.positions import sincos_table
from filmstrip.nn.rotary import Rotary
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.nn.two_branch import Placement, TwoBranchBlock
from filmstrip.objectives.planning import Planner, best_paths, plan_steps, start_and_goal
from filmstrip.objectives.step_prediction import NO_STEP, StepPredictionConfig, step_loss, top1
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Rules, Weights, check_names, renamed

_PUBLISHED: Rules = (
    (r"^state\.", "state_encoder.state_encoder."),
    (r"^text\.", "state_encoder.desc_encoder."),
    (r"^log_scale$", "state_encoder.logit_scale"),
    (r"^state_in\.", "state_decoder.feat_encode."),
    (r"^state_out\.", "state_decoder.state_proj."),
    (r"^state_task\.", "state_decoder.query_embed."),
    (r"^step_task\.", "action_decoder.query_embed."),
    (r"^task_head\.", "task_decoder."),
    (r"^step_head\.", "action_decoder.classifier."),
    (r"^state_decoder\.blocks\.", "state_decoder.decoder.layers."),
    (r"^step_decoder\.blocks\.", "action_decoder.decoder.layers."),
    (r"\.to_slots\.out\.", ".self_attn.attention.out_proj."),
    (r"\.to_texts\.out\.", ".cross_attn.attention.out_proj."),
    (r"\.to_slots\.qkv\.", ".self_attn.attention.in_proj_"),
    (r"\.to_texts\.(?:q|kv)\.", ".cross_attn.attention.in_proj_"),
    (r"\.norms_inside\.0\.", ".self_attn.ln."),
    (r"\.norms_inside\.1\.", ".cross_attn.ln."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.norms\.2\.", ".norm3."),
)
_UNREAD = (r"(?:state|action)_decoder\.(?:pos_encoder\.pe|logit_scale)", r"action_decoder\.proj\.\w+")
"""Names in the authors' files that their network does not use, and the table of positions."""
_STATE_WEIGHT = 0.1
_RARE = 1e-6  # the share of a step that never followed another
_FULL_NOISE = 1000.0
"""Diffusion time of targets that are pure noise."""


class TextDecoderBlock(nn.Module):
    """Slots look at each other, then at texts: ``B N D`` and ``M D`` to ``B N D``.

    Niu et al. 2024 (SCHEMA): normalised after each part is added, and what attention gives also before.
    """

    def __init__(self, config: SCHEMAConfig) -> None:
        super().__init__()
        width, num_heads, dropout = config.width, config.num_heads, config.dropout
        self.to_slots = Attention(width, num_heads)
        self.to_texts = Attention(width, num_heads, context_width=width)
        self.norms_inside = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        hidden = round(width * config.mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, slots: Tensor, texts: Tensor) -> Tensor:
        """Apply the block."""
        said = self.norms_inside[0](self.dropout(self.to_slots(slots)))
        slots = self.norms[0](slots + self.dropout(said))
        # All rows read the same texts: as one row of many slots they share keys and values.
        read = self.to_texts(rearrange(slots, "b n d -> 1 (b n) d"), context=texts[None])
        said = self.norms_inside[1](self.dropout(read.view_as(slots)))
        slots = self.norms[1](slots + self.dropout(said))
        return self.norms[2](slots + self.mlp(slots))


class TextDecoder(nn.Module):
    """SCHEMA's: one row of slots, zeros where nothing is known, sines and cosines for places."""

    def __init__(self, config: SCHEMAConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TextDecoderBlock(config) for _ in range(config.depth))

    def forward(self, known: Tensor, unknown: Tensor, texts: Tensor, told: Tensor | None = None) -> Tensor:
        """What stands at the places that are not known, ``B T D``, in order.

        ``known`` is ``B M D``, in order; ``unknown`` (``M + T``, bool) says which places are not; ``texts`` are
        ``K D``; ``told`` (``B D``) is said to every slot.
        """
        slots = known.new_zeros(len(known), len(unknown), known.shape[-1])
        slots[:, ~unknown] = known
        slots = slots + sincos_table(len(unknown), known.shape[-1]).to(slots)
        if told is not None:
            slots = slots + told[:, None]
        for block in self.blocks:
            slots = block(slots, texts)
        return slots[:, unknown]


class TwoBranchTextDecoder(nn.Module):
    """The same with VEDIT's blocks: the unknown slots are its targets, known ones and texts are what it sees.

    Lin et al. 2024, section 4.2. One pass, at the time of full noise: the places are empty, as SCHEMA has them.
    Texts stand before the first slot.
    """

    def __init__(self, config: SCHEMAConfig) -> None:
        super().__init__()
        width, depth, num_heads = config.width, config.depth, config.num_heads
        self.rotary = Rotary(width // num_heads)
        self.time = TimeEmbedding(width)
        self.empty = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            TwoBranchBlock(width, num_heads, mlp_ratio=config.mlp_ratio, last=i == depth - 1) for i in range(depth)
        )

    def forward(self, known: Tensor, unknown: Tensor, texts: Tensor, told: Tensor | None = None) -> Tensor:
        """As :class:`TextDecoder`; the blocks' conditioning is told too."""
        places = torch.arange(1, len(unknown) + 1, device=known.device)
        angles = self.rotary(torch.cat([places, places.new_zeros(len(texts))])[:, None])
        of_texts = angles[len(unknown) :]
        placement = Placement(
            target_angles=angles[: len(unknown)][unknown],
            seen_angles=torch.cat([angles[: len(unknown)][~unknown], of_texts]),
            targets=None,
            seen=None,
            both=None,
        )
        time = self.time(torch.full((1,), _FULL_NOISE, device=known.device))
        time = time if told is None else time + told
        seen = torch.cat([known, texts.expand(len(known), -1, -1)], dim=1)
        target = repeat(self.empty, "d -> b t d", b=len(known), t=int(unknown.sum()))
        for block in self.blocks:
            target, seen = block(target, seen, block.modulation(time), placement)
        return target


class SCHEMA(Planner):
    """States, then steps, then their chain."""

    requires = ("features", "step", "seen", "target", "task")

    def __init__(self, config: SCHEMAConfig) -> None:
        super().__init__()
        width, num_tasks = config.width, config.num_tasks
        texts = config.read_texts()
        num_steps, _, text_width = texts.shape
        state_decoder, step_decoder = (_decoder(config) for _ in range(2))
        self.register_buffer("texts", texts)
        self.register_buffer("followed", torch.zeros(num_steps, num_steps))
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.state = nn.Sequential(
            nn.Linear(config.feature_width, 2 * config.feature_width), nn.Linear(2 * config.feature_width, width)
        )
        self.text = nn.Linear(text_width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.state_decoder, self.step_decoder = state_decoder, step_decoder
        self.state_in = nn.Linear(width, width)
        self.state_out = nn.Linear(width, width, bias=False)
        self.state_task = nn.Linear(num_tasks, width) if config.state_task else None
        self.step_task = nn.Embedding(num_tasks, width)
        self.task_head = _head(2 * width, width, num_tasks, config.dropout)
        self.step_head = _head(width, width, num_steps, config.dropout)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the texts' features and the chain of steps, from a released state.

        Raises:
            UserError: the state is of another network.
        """
        names = {n: renamed(n, _PUBLISHED) for n in self.state_dict() if n not in ("texts", "followed")}
        check_names("this is not a released SCHEMA of this size: it", theirs, set(names.values()), spare=_UNREAD)
        weights = {name: theirs[key] for name, key in names.items()}
        for name, tensor in weights.items():
            if match := re.search(r"\.to_texts\.(q|kv)\.", name):
                width = len(tensor) // 3
                weights[name] = tensor[:width] if match[1] == "q" else tensor[width:]
        return weights

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats of steps, of the first and last step by their states' texts, of tasks; distance of states' texts."""
        steps, task = plan_steps(batch), batch["task"]
        if (steps == NO_STEP).any() or (task < 0).any():
            raise UserError("SCHEMA learns from plans whose steps and task are all known")
        if self.training:
            pairs = (steps[:, :-1].flatten(), steps[:, 1:].flatten())
            self.followed.index_put_(pairs, self.followed.new_ones(()), accumulate=True)
        ends, texts = self._encode(start_and_goal(batch))
        tasks = self.task_head(ends.flatten(1))
        states, logits = self._decode(ends, texts, tasks, task, steps.shape[1])
        ends_loss = self._match(ends[:, 0], texts, steps[:, 0], 0) + self._match(ends[:, 1], texts, steps[:, -1], 1)
        # A state between two steps is described after the one and before the other.
        of_steps = F.embedding(steps, texts.flatten(1)).unflatten(2, (2, -1, texts.shape[2]))
        before, after = of_steps.mean(dim=3).unbind(2)
        described = (before[:, 1:] + after[:, :-1]).detach() / 2
        distance = F.mse_loss(states[:, 1:-1], described) if steps.shape[1] > 1 else states.new_zeros(())
        nats = step_loss(logits.flatten(0, 1), steps.flatten())
        total = nats + ends_loss / 2 + step_loss(tasks, task) + _STATE_WEIGHT * distance
        said = {"top1": top1(logits.flatten(0, 1), steps.flatten()), "task_top1": top1(tasks, task)}
        return Loss(total, {"nats": nats.detach(), "distance": distance.detach(), **said})

    def plan(self, ends: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """Log-probability ``B T steps`` of the best chain through each step."""
        states, texts = self._encode(ends)
        tasks = self.task_head(states.flatten(1))
        _, logits = self._decode(states, texts, tasks, tasks.argmax(dim=-1), horizon)
        follows = (self.followed / self.followed.sum(dim=1, keepdim=True).clamp(min=1)).clamp(min=_RARE).log()
        return best_paths(logits.log_softmax(dim=-1), follows)

    def _encode(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        """States ``B 2 W`` of features ``B 2 N D``, and texts ``steps K W``."""
        states = self.state(self.input_dropout(ends.mean(dim=2)))
        return states, self.text(self.input_dropout(self.texts))

    def _decode(
        self, ends: Tensor, texts: Tensor, tasks: Tensor, task: Tensor, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """All states ``B T+1 W``, and logits ``B T steps``; ``tasks`` are logits, ``task`` is the chosen one."""
        texts = rearrange(texts, "c k d -> (c k) d")
        place = torch.arange(2 * horizon + 1, device=ends.device)
        between = (place[: horizon + 1] > 0) & (place[: horizon + 1] < horizon)
        told = None if self.state_task is None else self.state_task(tasks.detach())
        made = self.state_out(self.state_decoder(self.state_in(ends), between, texts, told))
        states = torch.cat([ends[:, :1], made, ends[:, 1:]], dim=1)
        steps = self.step_decoder(states, place % 2 == 1, texts, self.step_task(task))
        return states, self.step_head(steps)

    def _match(self, state: Tensor, texts: Tensor, step: Tensor, half: int) -> Tensor:
        """Nats of ``step`` by how alike ``state`` (``B W``) is to all steps' texts before (0) or after (1) them."""
        texts = F.normalize(texts.unflatten(1, (2, -1))[:, half], dim=-1)
        alike = torch.einsum("bw,ckw->bc", F.normalize(state, dim=-1), texts) / texts.shape[1]
        return F.cross_entropy(self.log_scale.exp() * alike, step)


def _decoder(config: SCHEMAConfig) -> nn.Module:
    return (TwoBranchTextDecoder if config.blocks == "vedit" else TextDecoder)(config)


def _head(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))


@dataclass(frozen=True, kw_only=True)
class SCHEMAConfig(StepPredictionConfig):
    """Sizes."""

    texts: Path | None = None
    """File ``.npy`` with the features of each step's texts, ``steps K D``."""
    text_width: Count = 768
    num_texts: Count = 6
    """Number of texts of each step if ``texts`` is None, half of them about the state before it."""
    width: Count = 128
    depth: Count = 2
    """Number of blocks of each decoder."""
    num_heads: Count = 32
    mlp_ratio: Rate = 2.0
    dropout: ShareBelowOne = 0.0
    input_dropout: ShareBelowOne = 0.0
    """Dropout of features and texts."""
    blocks: Literal["vanilla", "vedit"] = "vanilla"
    """Blocks of both decoders: SCHEMA's own, or VEDIT's."""
    state_task: bool = True
    """Whether the state decoder receives the recognised task."""

    def build(self) -> SCHEMA:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps or no tasks, or the texts are not of these steps.
        """
        self.check()
        if not self.num_tasks:
            raise UserError("SCHEMA plans for a task, and the data has none")
        return SCHEMA(self)

    def read_texts(self) -> Tensor:
        """Features ``steps K D`` of all texts; without a file fixed random ones.

        Raises:
            UserError: the file cannot be read, or holds something else.
        """
        if self.texts is None:
            generator = torch.Generator().manual_seed(0)
            return torch.randn(self.num_steps, self.num_texts, self.text_width, generator=generator)
        try:
            texts = np.load(self.texts)
        except (OSError, ValueError) as error:
            raise UserError(f"the texts of steps in {self.texts} cannot be read: {error}") from None
        if texts.ndim != 3 or len(texts) != self.num_steps or texts.shape[1] % 2:
            raise UserError(
                f"{self.texts} holds {texts.shape}; expected ({self.num_steps} steps, an even number of texts, width)"
            )
        return torch.from_numpy(texts).float()


def tiny() -> Run:
    """A narrow one; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5, task="planning", horizon=3),
            batch_size=32,
        ),
        objective=SCHEMAConfig(text_width=16, width=32, num_heads=4, dropout=0.0, input_dropout=0.0),
        optim=AdamW(lr=3e-3, weight_decay=1e-4),
        train=Loop(length=Steps(200)),
        evals=(Planning(),),
    )


def _paper(dataset: str, *, lr: float, state_task: bool = True) -> Run:
    return Run(
        data=Data(reads=Procedures(dataset=dataset, task="planning", horizon=3, division="schema"), batch_size=256),
        objective=SCHEMAConfig(
            text_width=768,
            num_texts=6,
            width=128,
            depth=2,
            num_heads=32,
            mlp_ratio=2.0,
            dropout=0.2,
            input_dropout=0.4,
            state_task=state_task,
        ),
        optim=AdamW(lr=lr, weight_decay=1e-4, schedule=Cosine(warmup=0.0)),
        train=Loop(length=Epochs(500), clip_grad=None),
        evals=(Planning(),),
    )


def crosstask() -> Run:
    """CrossTask, T = 3."""
    return _paper("crosstask", lr=4e-3)


def coin() -> Run:
    """COIN, T = 3."""
    return _paper("coin", lr=5e-3)


def niv() -> Run:
    """NIV, T = 3."""
    return _paper("niv", lr=3e-3, state_task=False)


def tiny_vedit() -> Run:
    """The narrow one with VEDIT's blocks."""
    run = tiny()
    return replace(run, objective=replace(run.objective, blocks="vedit"))


def niv_vedit() -> Run:
    """NIV, T = 3, with VEDIT's blocks."""
    run = niv()
    return replace(run, objective=replace(run.objective, blocks="vedit"))


def crosstask_vedit() -> Run:
    """CrossTask, T = 3, with VEDIT's blocks."""
    run = crosstask()
    return replace(run, objective=replace(run.objective, blocks="vedit"))
