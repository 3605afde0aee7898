"""AMP: an agent whose reward is how much its films look like experts' to a network that learns to tell the two apart.

A discriminator sees windows of consecutive frames and says 1 of experts' and -1 of the agent's (least squares), with
a penalty on its slope where experts are; what it says of the agent's windows is the reward. Peng, Ma, Abbeel, Levine
& Kanazawa, "AMP: Adversarial Motion Priors for Stylized Physics-Based Character Control", SIGGRAPH 2021, from pixels
alone, around DreamerV3, as the baseline of VIPER (Escontrela et al. 2023). Experts of one task, or of all tasks:
nothing tells it which film is of which.

    filmstrip rl record --env point --policy expert --episodes 50 --out experts/point
    filmstrip train control.amp:point --experts experts/point --out runs/amp
    filmstrip train control.amp:dmc --env dm_control/walker-walk --experts experts/walk --out runs/walk
    filmstrip train control.amp:reach_multi --out runs/multi
    filmstrip rl play runs/amp --out episodes

The discriminator has convolutions of its own and is trained in the step of the agent's world model, by the same
optimiser. Rewards age as it learns: they are never stored, but found anew for every sequence that is drawn, and the
agent's reward head (two-hot) learns to foretell them for imagination. Windows never reach over the start of an
episode; a step that ends no whole window of its sequence has no reward, and the reward head learns nothing from it.
The agent never sees the environment's own reward.

The thesis has no sizes of this baseline. The public code of VIPER has those of the presets: windows of 5 frames
stacked on channels, 5 layers of 1024 at every size of the agent, 2.5 divided by the window as the weight of the
gradient's squared norm, rewards clipped to -2..2, no bonus for exploration. AMP's own: a weight of 5, rewards not
below zero (``--objective.penalty 5 --objective.reward-range 0 1``).

Where we deviate: the public code gives a state the reward of the window that ends with the frame before it, here its
own frame is the last one; its windows reach over the ends of episodes. Films shorter than a sequence
(``data.reads.length``) repeat their last frame, which would teach that experts stand still: give longer ones. Films
of another size than the environment's are scaled, and a blur can tell them apart: record them at its size.

The paper reports, in plots alone: below VIPER on all three suites, and of all tasks together far below AMP on a
single one. Nothing of this was measured here yet; ``docs/log.md`` says how far a first run of ``point`` went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Ascending, Bounds, Count, Rate, Share
from filmstrip.data.blanking import blank
from filmstrip.data.config import Clip, DataInfo
from filmstrip.errors import UserError
from filmstrip.nn.normed_layers import FrameEncoder, Perceptron
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Agent, Batch, Loss, Objective, Phase, as_float
from filmstrip.rl.films import ExpertFilms
from filmstrip.runs.config import Run
from filmstrip.systems import find


@dataclass(frozen=True, kw_only=True)
class AmpConfig(ObjectiveConfig):
    """The agent, and the discriminator that rewards it."""

    agent: ObjectiveConfig
    """Agent that learns by the reward, such as that of ``control.dreamer``."""
    window: Annotated[int, Bounds(min=2)] = 5
    """Number of consecutive frames that are judged together; a single one shows no motion."""
    channels: Count = 32
    """Channels of the discriminator's first convolution."""
    width: Count = 1024
    """Width of its hidden layers."""
    depth: Count = 5
    """Number of its hidden layers."""
    penalty: Rate = 0.5
    """Weight of the squared norm of its gradient at experts' windows, of pixels in 0..1."""
    reward_range: Annotated[tuple[AnyNumber, AnyNumber], Ascending] = (-2.0, 2.0)
    """Range that rewards are clipped to."""
    blanked: tuple[tuple[Share, Share, Share, Share], ...] = ()
    """Rectangles of frames that the discriminator does not see, such as a scoreboard: left, top, right and bottom
    edge, as fractions of width and height. The agent sees all."""

    @property
    def size(self) -> int:
        """Height and width of frames, pixels: the agent's."""
        return int(getattr(self.agent, "size", 0))

    @property
    def action_dim(self) -> int:
        """Values of an action that is a vector, else zero: the agent's."""
        return int(getattr(self.agent, "action_dim", 0))

    def bind(self, info: DataInfo) -> AmpConfig:
        """Tell the agent of its environment."""
        return replace(self, agent=self.agent.bind(info))

    def for_clip(self, clip: Clip) -> AmpConfig:
        """The agent for frames of another size."""
        return replace(self, agent=self.agent.for_clip(clip))

    def build(self) -> Amp:
        """Build the networks with fresh weights.

        Raises:
            UserError: the agent cannot be built, or cannot learn from rewards of which some are unknown.
        """
        agent = self.agent.build()
        if not isinstance(agent, Agent) or not agent.leaves_out_unknown_rewards:
            raise UserError(
                f"{type(agent).__name__} cannot learn from sequences of which some steps have no reward: take the "
                "agent of control.dreamer"
            )
        return Amp(self, agent)


class Discriminator(nn.Module):
    """Convolutions over the frames of a window, stacked on channels, and a perceptron: near 1 for experts."""

    def __init__(self, config: AmpConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config.channels, config.size, inputs=3 * config.window)
        self.head = Perceptron(self.encoder.width, config.width, config.depth, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """What it says of windows ``N 3W H W`` in 0..1: ``N`` float32."""
        return self.head(self.encoder(windows))[:, 0]


class Amp(Objective):
    """The discriminator's loss, within the loss of the agent's first phase, whose rewards it gives."""

    def __init__(self, config: AmpConfig, agent: Objective) -> None:
        super().__init__()
        self.config, self.agent = config, agent
        self.discriminator = Discriminator(config)
        self.requires = (*(key for key in agent.requires if key != "reward"), "experts")
        self.learns_in = agent.phases()[0].name

    def phases(self) -> tuple[Phase, ...]:
        """Those of the agent, the discriminator with the world model."""
        first, *others = self.agent.phases()
        return Phase(first.name, (*first.modules, self.discriminator)), *others

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one phase; in the first one, of the discriminator too.

        Raises:
            UserError: sequences are shorter than a window.
        """
        if phase != self.learns_in:
            return self.agent(batch, phase)
        said, whole = self.judged(batch)
        reward = batch["video"].new_full(batch["video"].shape[:2], torch.nan, dtype=torch.float32)
        given = self.reward(said.detach())
        reward[:, self.config.window - 1 :] = given.where(whole, torch.nan)
        loss = self.agent({**batch, "reward": reward}, phase)
        own, metrics = self.discrimination(batch["experts"], said, whole)
        metrics["given"] = _mean(given, whole)
        return Loss(loss.total + own, {**loss.metrics, **metrics})

    def judged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the discriminator says of each window of the agent's sequences, ``B T-W+1`` in the order of their last
        frames, and whether the window lies within an episode."""
        size = self.config.window
        if batch["video"].shape[1] < size:
            raise UserError(
                f"sequences have {batch['video'].shape[1]} frames, and windows {size}: set --data.reads.length to "
                f"{size} or more"
            )
        said = self.discriminator(self.windows(batch["video"])).unflatten(0, (batch["video"].shape[0], -1))
        return said, ~batch["first"].unfold(1, size, 1)[..., 1:].any(dim=-1)

    def windows(self, video: Tensor) -> Tensor:
        """All windows of ``B T 3 H W`` video, ``B*(T-W+1) 3W H W`` in 0..1."""
        shown = blank(video, self.config.blanked).unfold(1, self.config.window, 1)
        return as_float(shown.movedim(-1, 2).flatten(2, 3).flatten(0, 1))

    def reward(self, said: Tensor) -> Tensor:
        """What windows earn of which the discriminator says so: 1 where it takes them for experts', 0 at the agent's
        -1."""
        return (1 - 0.25 * (said - 1).square()).clamp(*self.config.reward_range)

    def discrimination(self, experts: Tensor, said: Tensor, whole: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the discriminator: halves of the squared distances of what it says of films of experts
        ``B T 3 H W`` from 1, and of the agent's windows from -1, with the penalty."""
        with torch.enable_grad():  # the slope is needed where no gradient of the loss is
            windows = self.windows(experts).requires_grad_()
            of_experts = self.discriminator(windows)
            (slope,) = torch.autograd.grad(of_experts.sum(), windows, create_graph=True)
        penalty = slope.float().square().sum(dim=(1, 2, 3)).mean()
        error = 0.5 * ((of_experts - 1).square().mean() + _mean((said + 1).square(), whole))
        found = {
            "discriminator": error,
            "penalty": penalty,
            "of_experts": of_experts.mean(),
            "of_agent": _mean(said, whole),
        }
        return error + self.config.penalty * penalty, {name: value.detach() for name, value in found.items()}

    def after_step(self, step: int) -> None:
        """That of the agent."""
        self.agent.after_step(step)

    def decide(
        self, frame: Tensor, memory: dict[str, Tensor] | None, first: Tensor, *, seed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the agent does; see :class:`~filmstrip.protocols.Agent`."""
        assert isinstance(self.agent, Agent), "it was checked"
        return self.agent.decide(frame, memory, first, seed=seed)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """The mean of values where they count."""
    return (values * known).sum() / known.sum().clamp(min=1)


def tiny() -> Run:
    """``point`` at 32 x 32 pixels by small networks; trains in seconds on two CPU cores."""
    films = ExpertFilms(num_train=6, num_test=1, max_steps=20)
    return _around("control.dreamer:tiny", films, channels=8, width=32, depth=1, window=4)


def point() -> Run:
    """``point`` at 32 x 32 pixels, by 50 films of its expert; the agent is that of ``control.dreamer:point``."""
    return _around("control.dreamer:point", ExpertFilms(), channels=16, width=128, depth=2)


def reach() -> Run:
    """One task of ``reach``, by 50 films of its expert."""
    run = _reach()
    return replace(run, data=replace(run.data, synthetic=ExpertFilms(environments=(run.data.reads.env.name,))))


def reach_multi() -> Run:
    """The same task by 50 films of experts of each of four tasks, which nothing tells apart."""
    return _reach()


def dmc() -> Run:
    """The DeepMind Control Suite, with the agent of VIPER's table E.3; ``--experts FOLDER`` of one task or of all."""
    return _around("control.dreamer:viper_dmc", channels=32)


def atari() -> Run:
    """Atari; blank the scoreboard of your game (``--objective.blanked``)."""
    return _around("control.dreamer:viper_atari", channels=96)


def rlbench() -> Run:
    """RLBench, whose environments are a class of your own (``--env my_module:MyTask``)."""
    return _around("control.dreamer:viper_rlbench", channels=96)


_TASKS = ("right", "down", "left", "up")


def _reach() -> Run:
    run = _around(
        "control.dreamer:point",
        ExpertFilms(environments=tuple(f"reach/{task}/steel" for task in _TASKS)),
        channels=16,
        width=128,
        depth=2,
    )
    reads = run.data.reads
    reads = replace(reads, env=replace(reads.env, name="reach/right/steel"))
    return replace(run, data=replace(run.data, reads=reads))


def _around(address: str, films: ExpertFilms | None = None, **discriminator: int) -> Run:
    """The run of an agent without a bonus, whose episodes end where they do: rewards are hardly ever below zero."""
    run = find(address)
    return replace(
        run,
        data=replace(run.data, synthetic=films, reads=replace(run.data.reads, experts=True), num_workers=2),
        objective=AmpConfig(agent=replace(run.objective, beta=0.0, ends=True), **discriminator),
    )
