"""MaskGIT over video: predicts hidden codes from visible ones, and so draws a whole grid of codes in a few passes.

A bidirectional transformer learns to restore a tokenizer's codes of which a random share is hidden, by the cosine
schedule. With ``frames="together"`` the grid of space and time is filled at once, with attention of one's choice:
among all places, in a frame and in squares through all frames by turns (MaskViT), or along single lines (axial).
With ``frames="in_order"`` a causal transformer summarises the frames so far, and the next is filled from that.
Chang et al., "MaskGIT: Masked Generative Image Transformer", CVPR 2022; Gupta et al., "MaskViT: Masked Visual
Pre-Training for Video Prediction", ICLR 2023; draft-and-revise sampling: Lee et al. 2022; the presets of frames in
order are VIPER's (Escontrela et al. 2023, table E.2).

    filmstrip train generation.maskgit:viper_dmc --data.path PATH --objective.tokenizer-run RUN

Where we deviate: masks hide from one code to all of them (MaskViT: at least half; its context frames are always
visible here too). VIPER's table gives one depth and width: both of our transformers have them. The sizes of
``maskvit_dmlab`` are ours; the texts here give none.

Chang et al. report, on ImageNet, FID 6.18 in 8 passes against 15.78 in 256 of an autoregressive transformer. We
measured, with ``python claims/maskgit_passes.py`` (motions, 1,200 steps, one seed), 16 passes against 256, and at
equal training samples that are worse: Frechet distance 0.068 against 0.013 (other real videos: 0.002). Much of that
is the order: places filled in random order, instead of by confidence, give 0.024.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from filmstrip.bounds import Count, CountOrZero, Share
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions, Known
from filmstrip.models.frame_history import FrameHistory
from filmstrip.models.masked_transformer import WHOLE, MaskedTransformer, Window
from filmstrip.nn.masked_sampling import MaskedSampling, Schedule
from filmstrip.objectives.latent import LatentConfig, LatentObjective
from filmstrip.objectives.masked_codes import MaskedCodes
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class MaskGITConfig(LatentConfig):
    """The transformers and how codes are hidden."""

    frames: Literal["together", "in_order"] = "together"
    """Fill the grid of space and time at once, or one frame after the other."""
    attention: Literal["full", "maskvit", "axial"] = "full"
    """Of frames together: among all places, or in windows by turns from block to block."""
    window: Count = 4
    """Height and width of MaskViT's windows through all frames, codes."""
    width: Count = 512
    depth: Count = 8
    num_heads: Count = 8
    code_width: Count = 256
    """Channels that a code embeds to."""
    stride: Count = 1
    """Places along each axis that share a token of the summary of the past (frames in order)."""
    history_width: Count = 512
    history_depth: Count = 8
    history_num_heads: Count = 8
    context_frames: CountOrZero = 0
    """Frames that are never hidden (frames together)."""
    conditions: tuple[Literal["label", "action"], ...] = ()
    """What samples can be asked for beside first frames: a class, actions."""
    condition_drop: Share = 0.1
    """Share of the clips whose class and actions are hidden in training: for samples without, and for guidance."""
    num_classes: CountOrZero = 0
    num_actions: CountOrZero = 0
    action_dim: CountOrZero = 0
    """Classes, discrete actions, or values of a continuous one: told by the data."""
    label_width: Count = 64
    action_width: Count = 16
    schedule: Schedule = "cosine"
    sampling: MaskedSampling = field(default_factory=MaskedSampling, metadata=FREE)

    def bind(self, info: DataInfo) -> MaskGITConfig:
        """Take over what the classes and actions of the data are.

        Raises:
            UserError: the model is to see actions and the data have none.
        """
        found = {}
        if "label" in self.conditions:
            found["num_classes"] = len(info.classes)
        if "action" in self.conditions:
            if not isinstance(info, ClipInfo) or not (info.num_actions or info.action_dim):
                raise UserError("actions as condition need data with actions: leave them out of objective.conditions")
            found |= {"num_actions": info.num_actions, "action_dim": info.action_dim}
        return replace(self, **found)

    def build(self) -> MaskedCodes:
        """Build the transformers with fresh weights.

        Raises:
            UserError: the sizes do not fit each other, or actions the tokenizer.
        """
        tokenizer = self.build_tokenizer()
        space = LatentObjective(tokenizer, num_frames=self.num_frames, size=self.size)
        t, h, w = space.grid
        size = (h, w * space.num_codebooks)
        each = tokenizer.patch_size[0]
        label, action = "label" in self.conditions, "action" in self.conditions
        if action and each > 1:
            raise UserError(
                f"actions belong to single frames, and the tokenizer codes {each} together: leave them out of "
                "objective.conditions"
            )
        if self.context_frames % each or not 0 <= self.context_frames < self.num_frames:
            raise UserError(
                f"context_frames is a multiple of {each} below {self.num_frames}, not {self.context_frames}"
            )
        known = Known(
            num_classes=self.num_classes if label else 0,
            num_actions=self.num_actions if action else 0,
            action_dim=self.action_dim if action else 0,
        )
        conditions = FrameConditions(known, label_width=self.label_width, action_width=self.action_width)
        in_order = self.frames == "in_order"
        windows = (WHOLE,) if in_order else self._windows(size)
        history = None
        if in_order:
            if any(n % self.stride for n in size):
                raise UserError(f"a stride of {self.stride} does not divide frames of {size[0]} x {size[1]} codes")
            history = FrameHistory(
                input_dim=self.code_width,
                given_dim=conditions.width,
                output_dim=self.code_width,
                size=size,
                stride=self.stride,
                num_frames=t,
                width=self.history_width,
                depth=self.history_depth,
                num_heads=self.history_num_heads,
            )
        return MaskedCodes(
            tokenizer,
            num_frames=self.num_frames,
            size=self.size,
            transformer=MaskedTransformer(
                codebook_size=space.codebook_size,
                grid=(1 if in_order else t, *size),
                width=self.width,
                depth=self.depth,
                num_heads=self.num_heads,
                code_width=self.code_width,
                condition_width=self.code_width if in_order else conditions.width,
                windows=windows,
            ),
            conditions=conditions,
            history=history,
            context_frames=self.context_frames,
            condition_drop=self.condition_drop,
            schedule=self.schedule,
            sampling=self.sampling,
        )

    def _windows(self, size: tuple[int, int]) -> tuple[Window, ...]:
        if self.attention == "axial":
            return ((0, 1, 1), (1, 0, 1), (1, 1, 0))
        if self.attention == "full":
            return (WHOLE,)
        if any(n % self.window for n in size):
            raise UserError(
                f"windows of {self.window} x {self.window} do not tile frames of {size[0]} x {size[1]} codes"
            )
        return ((1, 0, 0), (0, self.window, self.window))


def _tiny(**network: object) -> Run:
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=MaskGITConfig(
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            width=64,
            depth=2,
            num_heads=4,
            code_width=32,
            **network,
        ),
        optim=Optim(lr=2e-3, weight_decay=0.0),
        train=Loop(steps=100),
    )


def tiny() -> Run:
    """Motions at 32 x 32 pixels, 4 x 8 x 8 codes, frames together; trains in seconds on two CPU cores."""
    tokenizer = find("tokenizers.vqvae3d:tiny").objective
    return _tiny(tokenizer=tokenizer, attention="maskvit", conditions=("label",), label_width=16)


def tiny_in_order() -> Run:
    """The same with frames in order, 8 of 8 x 8 codes."""
    tokenizer = find("tokenizers.vqgan:tiny").objective
    return _tiny(
        tokenizer=tokenizer, frames="in_order", stride=4, history_width=64, history_depth=2, history_num_heads=4
    )


def maskvit_dmlab() -> Run:
    """MaskViT as TECO's comparison on DMLab has it: 16 frames of 16 x 16 codes, the first given."""
    network = MaskGITConfig(
        tokenizer=find("tokenizers.vqgan:dmlab").objective,
        attention="maskvit",
        context_frames=1,
        width=768,
        depth=12,
        num_heads=12,
    )
    return _paper(network, stride=1, lr=1e-4, schedule="cosine", steps=1_000_000)


def _paper(
    network: MaskGITConfig, *, stride: int, lr: float, schedule: Literal["cosine", "constant"], steps: int
) -> Run:
    size = network.size
    return Run(
        data=Data(
            clip=Clip(num_frames=network.num_frames, stride=stride, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=network,
        optim=Optim(lr=lr, weight_decay=0.0, schedule=schedule, warmup=0.01 * (schedule == "cosine")),
        train=Loop(steps=steps, precision="bfloat16"),
    )


def _viper(tokenizer: str, *, num_frames: int, stride: int, width: int, tasks: int) -> Run:
    """VIPER: frames in order, 8 layers of 8 heads, batches of 32, a constant rate of 1e-4, 500,000 steps."""
    network = MaskGITConfig(
        tokenizer=find(f"tokenizers.vqgan:{tokenizer}").objective,
        num_frames=num_frames,
        frames="in_order",
        width=width,
        history_width=width,
        conditions=("label",) if tasks > 1 else (),
        num_classes=tasks,
    )
    return _paper(network, stride=stride, lr=1e-4, schedule="constant", steps=500_000)


def viper_dmc() -> Run:
    """DeepMind Control Suite: 16 frames of 8 x 8 codes, 16 tasks."""
    return _viper("viper_dmc", num_frames=16, stride=1, width=256, tasks=16)


def viper_atari() -> Run:
    """Atari: 16 frames of 16 x 16 codes, 8 games."""
    return _viper("viper_atari", num_frames=16, stride=1, width=512, tasks=8)


def viper_rlbench() -> Run:
    """RLBench, one task: 4 frames of 16 x 16 codes, every fourth."""
    return _viper("viper_rlbench", num_frames=4, stride=4, width=256, tasks=1)


def viper_rlbench_tasks() -> Run:
    """RLBench, 34 tasks."""
    return _viper("viper_rlbench", num_frames=4, stride=4, width=512, tasks=34)
