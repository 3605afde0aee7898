"""PDPP: a plan is drawn out of noise, while start, goal and task are held fixed by projection.

A sequence of vectors, each a task, a step and what is seen, is denoised by a U-Net over time. After every denoising
step, and before the loss, what is known is written back: the task everywhere, the start's features into the first
vector and the goal's into the last, zeros between them. A classifier that sees start and goal names the task.
Wang et al., "PDPP: Projected Diffusion for Procedure Planning in Instructional Videos", CVPR 2023.

    filmstrip train procedures.pdpp:niv --data FEATURES --data.reads.annotations ANNOTATIONS

``--init FILE`` begins with weights of the authors' U-Net, or of their classifier: a file each.

Where we deviate: the classifier learns beside the U-Net, not before it (they share nothing); steps that are seen are
all features of a clip one after the other (published: three seconds of 512 features, 1536); the learning rate follows
a cosine (published: halved at every quarter of the training); weights are averaged at every step at the rate that
theirs are at every tenth; the error is a mean over the batch (theirs is a sum, which Adam does not see). As in the
published code, predictions are not clipped. Needs plans of three steps or more.

The paper reports, on CrossTask with T = 3, a success rate of 26.38, mAcc 55.62, mIoU 59.34, and with T = 4 18.69,
52.44, 62.38 (VEDIT, table 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty, Weight
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals.planning import Planning
from filmstrip.objectives.planning import Planner, plan_steps, start_and_goal
from filmstrip.objectives.step_prediction import NO_STEP, StepPredictionConfig, step_loss, top1
from filmstrip.protocols import Batch, Loss
from filmstrip.randomness import normal, uniform
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Rules, Weights, check_names, renamed, without_prefix

_UNET: Rules = (
    (r"^unet\.time\.0\.", "model.time_mlp.1."),
    (r"^unet\.time\.2\.", "model.time_mlp.3."),
    (r"^unet\.middle\.0\.", "model.mid_block1."),
    (r"^unet\.middle\.1\.", "model.mid_block2."),
    (r"^unet\.out\.0\.0\.", "model.final_conv.0.block.0."),
    (r"^unet\.out\.0\.1\.", "model.final_conv.0.block.2."),
    (r"^unet\.out\.1\.", "model.final_conv.1."),
    (r"^unet\.(downs|ups)\.(\d)\.2\.", r"model.\1.\2.2.conv."),
    (r"^unet\.", "model."),
    (r"\.first\.0\.", ".blocks.0.block.0."),
    (r"\.first\.1\.", ".blocks.0.block.2."),
    (r"\.second\.0\.", ".blocks.1.block.0."),
    (r"\.second\.1\.", ".blocks.1.block.2."),
    (r"\.time\.1\.", ".time_mlp.1."),
    (r"\.around\.", ".residual_conv."),
)
_CLASSIFIER: Rules = (
    (r"^classifier\.layers\.0\.", "fc1."),
    (r"^classifier\.layers\.1\.", "fc2."),
    (r"^classifier\.layers\.3\.", "fc3."),
    (r"^classifier\.head\.", "fc4."),
)
_CONSTANT = (r"betas", r"(?:sqrt_|log_)?(?:one_minus_|recip_|recipm1_)?alphas_cumprod(?:_prev)?", r"posterior_\w+")
"""Names of the noise schedule's constants in the authors' files."""
_GROUPS = 32


class SequenceBlock(nn.Module):
    """Two convolutions over time, the diffusion's time added between them, and a way around: ``B C T -> B C' T``."""

    def __init__(self, channels: int, out_channels: int, time_width: int) -> None:
        super().__init__()
        self.first = _convolution(channels, out_channels)
        self.time = nn.Sequential(nn.Mish(), nn.Linear(time_width, out_channels))
        self.second = _convolution(out_channels, out_channels, zero=True)
        self.around = nn.Conv1d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block; ``time`` is ``B time_width``."""
        return self.second(self.first(x) + self.time(time)[..., None]) + self.around(x)


class TemporalUNet(nn.Module):
    """``B T D -> B T D``, of sequences that are at least as long as there are ``widths``.

    Wang et al. 2023 (PDPP), after Janner et al. 2022 (Diffuser): each level is one step shorter than the one before
    (kernels of two, without stride), because plans are too short to be halved.
    """

    def __init__(self, channels: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        width = widths[0]
        self.width = width
        self.min_length = len(widths)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(zip((channels, *widths), widths)):
            self.downs.append(nn.ModuleList([SequenceBlock(a, b, width), SequenceBlock(b, b, width)]))
            self.downs[-1].append(nn.Conv1d(b, b, 2) if i < len(widths) - 1 else nn.Identity())
        self.middle = nn.ModuleList(SequenceBlock(widths[-1], widths[-1], width) for _ in range(2))
        for a, b in zip(widths[:0:-1], widths[-2::-1]):
            self.ups.append(nn.ModuleList([SequenceBlock(2 * a, b, width), SequenceBlock(b, b, width)]))
            self.ups[-1].append(nn.ConvTranspose1d(b, b, 2))
        self.out = nn.Sequential(_convolution(width, width, zero=True), nn.Conv1d(width, channels, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the network to ``B T D`` at diffusion times ``B``.

        Raises:
            ValueError: the sequence is too short.
        """
        if x.shape[1] < self.min_length:
            raise ValueError(f"the sequence has {x.shape[1]} steps, at least {self.min_length} are needed")
        x = rearrange(x, "b t d -> b d t")
        time = self.time(_waves(time, self.width))
        passed = []
        for first, second, shorten in self.downs:
            x = second(first(x, time), time)
            passed.append(x)
            x = shorten(x)
        for block in self.middle:
            x = block(x, time)
        for first, second, lengthen in self.ups:
            x = torch.cat([x, passed.pop()], dim=1)
            x = lengthen(second(first(x, time), time))
        return rearrange(self.out(x), "b d t -> b t d")


def _convolution(channels: int, out_channels: int, *, zero: bool = False) -> nn.Sequential:
    convolution = nn.Conv1d(channels, out_channels, 3, padding=1)
    if zero:
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(_GROUPS, out_channels), out_channels), nn.Mish())


def _waves(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times ``B`` at speeds from 1 to 1/10,000: ``B width``."""
    speeds = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(10_000) / (width // 2 - 1)))
    angles = time.float()[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TaskClassifier(nn.Module):
    """The task of a start and a goal, ``B 2 D -> B tasks``: the paper's MLP, the mean over both before its end."""

    def __init__(self, width: int, num_tasks: int) -> None:
        super().__init__()
        narrow = max(1, width // 3)
        self.layers = nn.Sequential(
            nn.Linear(width, narrow), nn.Linear(narrow, 4 * width), nn.ReLU(), nn.Linear(4 * width, narrow), nn.ReLU()
        )
        self.head = nn.Linear(narrow, num_tasks)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, ends: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.layers(ends).mean(dim=1))


class PDPP(Planner):
    """Projected diffusion over ``B T (tasks + steps + features)``."""

    requires = ("features", "step", "seen", "target", "task", "seed")
    draws = True

    def __init__(self, config: PDPPConfig) -> None:
        super().__init__()
        self.config = config
        self.num_steps, self.num_tasks = config.num_steps, config.num_tasks
        seen = config.num_tokens * config.feature_width
        self.unet = TemporalUNet(self.num_tasks + self.num_steps + seen, widths=config.widths)
        self.classifier = TaskClassifier(seen, self.num_tasks)
        self.register_buffer("kept", cosine_schedule(config.diffusion_steps), persistent=False)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Weights of the U-Net (averaged ones if there are any), or of the classifier, from a released state or file.

        Raises:
            UserError: the state is of another network.
        """
        theirs = without_prefix(theirs.get("ema", theirs.get("model", theirs)))
        part, rules = ("classifier.", _CLASSIFIER) if "fc1.weight" in theirs else ("unet.", _UNET)
        names = {name: renamed(name, rules) for name in self.state_dict() if name.startswith(part)}
        check_names("this is not a released PDPP of this size: it", theirs, names.values(), spare=_CONSTANT)
        return {name: theirs[key] for name, key in names.items()}

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Squared error of the denoised steps, the first and last ``ends_weight`` times, and the tasks' nats."""
        ends, step = start_and_goal(batch), plan_steps(batch)
        if (step == NO_STEP).any() or (batch["task"] < 0).any():
            raise UserError("PDPP learns from plans whose steps and task are all known")
        task = F.one_hot(batch["task"], self.num_tasks).float()
        clean = torch.zeros(*step.shape, self.unet_width(ends), device=step.device)
        clean[..., self.num_tasks : self.num_tasks + self.num_steps] = F.one_hot(step, self.num_steps)
        clean = project(clean, task, ends, self.num_steps)
        time = (uniform(batch["seed"], 1, "pdpp.time")[:, 0] * self.config.diffusion_steps).long()
        kept = self.kept[time][:, None, None]
        noise = normal(batch["seed"], clean[0].numel(), "pdpp.noise").view_as(clean)
        noisy = project(kept.sqrt() * clean + (1 - kept).sqrt() * noise, task, ends, self.num_steps)
        denoised = project(self.unet(noisy, time), task, ends, self.num_steps)
        weight = torch.ones(step.shape[1], 1, device=step.device)
        weight[[0, -1]] = self.config.ends_weight
        error = ((denoised - clean).float().square() * weight).sum(dim=(1, 2)).mean()
        tasks = self.classifier(ends.flatten(2))
        said = {
            "top1": top1(self._steps_of(denoised).flatten(0, 1), step.flatten()),
            "task_top1": top1(tasks, batch["task"]),
        }
        return Loss(error + step_loss(tasks, batch["task"]), {"error": error.detach(), **said})

    def unet_width(self, ends: Tensor) -> int:
        """Length of a vector of the sequence."""
        return self.num_tasks + self.num_steps + ends.shape[2] * ends.shape[3]

    def plan(self, ends: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """Logits ``B T steps``: what the last denoising step leaves of each step, near 0 or 1."""
        task = F.one_hot(self.classifier(ends.flatten(2)).argmax(dim=-1), self.num_tasks).to(ends)
        return self._steps_of(self.denoise(ends, task, horizon, seeds))

    def denoise(self, ends: Tensor, task: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """The whole sequence, ``B T (tasks + steps + features)``, for known tasks ``B tasks``.

        All steps of the diffusion with fresh noise (DDPM), or ``sampling_steps`` of them without (DDIM).

        Raises:
            UserError: plans are shorter than the network can take.
        """
        if horizon < self.unet.min_length:
            raise UserError(f"PDPP's network takes plans of {self.unet.min_length} steps or more, not {horizon}")
        shape = (len(ends), horizon, self.unet_width(ends))
        count = shape[1] * shape[2]
        steps, fewer = self.config.diffusion_steps, self.config.sampling_steps
        times = range(0, steps, steps // (fewer or steps))
        x = project(normal(seeds, count, "pdpp.start").view(shape), task, ends, self.num_steps)
        for i in reversed(range(len(times))):
            clean = self.unet(x, torch.full((len(x),), times[i], device=x.device))
            now, then = self.kept[times[i]], self.kept[times[i - 1]] if i else self.kept.new_ones(())
            if fewer:
                noise = (x - now.sqrt() * clean) / (1 - now).sqrt()
                x = then.sqrt() * clean + (1 - then).sqrt() * noise
            else:
                beta = 1 - now / then
                x = (then.sqrt() * beta * clean + (1 - then) * (1 - beta).sqrt() * x) / (1 - now)
                if i:
                    fresh = normal(seeds, count, "pdpp.fresh_noise", i).view(shape)
                    x = x + (beta * (1 - then) / (1 - now)).sqrt() * fresh
            x = project(x, task, ends, self.num_steps)
        return x

    def _steps_of(self, x: Tensor) -> Tensor:
        return x[..., self.num_tasks : self.num_tasks + self.num_steps]


def project(x: Tensor, task: Tensor, ends: Tensor, num_steps: int) -> Tensor:
    """``x`` (``B T (tasks + steps + features)``) with all but its steps replaced by what is known."""
    start, goal = rearrange(ends, "b two n d -> two b 1 (n d)").to(x)
    between = x.new_zeros(len(x), x.shape[1] - 2, start.shape[-1])
    tasks = task[:, None].expand(-1, x.shape[1], -1).to(x)
    steps = x[..., task.shape[1] : task.shape[1] + num_steps]
    return torch.cat([tasks, steps, torch.cat([start, between, goal], dim=1)], dim=-1)


def cosine_schedule(steps: int) -> Tensor:
    """The share of the signal's variance that is left after each of ``steps`` (Nichol & Dhariwal 2021), float32."""
    angle = (torch.linspace(0, 1, steps + 1, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2
    level = angle.cos().square()
    return (level[1:] / level[:-1]).clamp(0.001, 1).cumprod(dim=0).float()


@dataclass(frozen=True, kw_only=True)
class PDPPConfig(StepPredictionConfig):
    """The network and the diffusion."""

    widths: Annotated[tuple[Count, ...], NotEmpty] = (256, 512, 1024)
    """Numbers of channels of the U-Net's levels, each one step shorter than the previous one."""
    diffusion_steps: Count = 200
    sampling_steps: Count | None = None
    """Number of deterministic denoising steps (DDIM); None for all steps with fresh noise."""
    ends_weight: Weight = 1.0
    """Weight of the first and the last step in the loss, relative to the others."""

    def build(self) -> PDPP:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps or no tasks, or there are more sampling than diffusion steps.
        """
        self.check()
        if not self.num_tasks:
            raise UserError("PDPP plans for a task, and the data has none")
        if not 1 <= (self.sampling_steps or 1) <= self.diffusion_steps:
            raise UserError(f"objective.sampling_steps is 1 to {self.diffusion_steps}, not {self.sampling_steps}")
        return PDPP(self)


def tiny() -> Run:
    """A narrow one, 20 steps of diffusion; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5, task="planning", horizon=3),
            batch_size=32,
        ),
        objective=PDPPConfig(widths=(32, 64, 64), diffusion_steps=20, ends_weight=10.0),
        optim=AdamW(lr=1e-3, weight_decay=0.0),
        train=Loop(length=Steps(200), clip_grad=None),
        evals=(Planning(),),
    )


def _paper(procedures: Procedures, *, lr: float, steps: int, diffusion_steps: int = 200) -> Run:
    return Run(
        data=Data(reads=procedures, batch_size=256),
        objective=PDPPConfig(widths=(256, 512, 1024), diffusion_steps=diffusion_steps, ends_weight=10.0),
        optim=AdamW(lr=lr, weight_decay=0.0, schedule=Cosine(warmup=1 / 6)),
        train=Loop(length=Steps(steps), clip_grad=None, ema=0.9995),
        evals=(Planning(),),
    )


def crosstask() -> Run:
    """CrossTask's 105 steps from HowTo100M features, T = 3."""
    procedures = Procedures(dataset="crosstask", task="planning", horizon=3, shared_steps=True)
    return _paper(procedures, lr=5e-4, steps=24_000)


def coin() -> Run:
    """COIN, T = 3."""
    return _paper(Procedures(dataset="coin", task="planning", horizon=3), lr=1e-5, steps=160_000)


def niv() -> Run:
    """NIV, T = 3."""
    return _paper(Procedures(dataset="niv", task="planning", horizon=3), lr=3e-4, steps=6_500, diffusion_steps=50)
