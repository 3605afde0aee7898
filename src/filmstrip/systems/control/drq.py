"""DrQ: an agent that learns from pixels by soft actor-critic, with every frame shifted at random.

A convolutional encoder that the critics train, two critics, an actor that reads the encoder without changing it, and
a temperature that keeps the policy's entropy at half the number of an action's values. Every time a frame is learnt
from, it is cropped anew. Kostrikov, Yarats & Fergus, "Image Augmentation Is All You Need", ICLR 2021; soft
actor-critic: Haarnoja et al. 2018. It is the agent of VIPER's ablation (Escontrela et al. 2023, table E.4), with
random network distillation (Burda et al. 2019) for exploration.

    filmstrip train control.drq:point --out runs/oracle
    filmstrip train control.drq:viper_point --reward runs/prior --out runs/agent
    filmstrip train control.drq:viper_dmc --env dm_control/walker-walk --reward runs/prior --out runs/walker
    filmstrip eval runs/agent --protocol returns

The loop is that of all methods: its batches come from a replay (:mod:`filmstrip.rl.replay`) that lets the agent act
between them, one step for each batch. Rewards are labels of the replay; the video model is never called in training.
With a bonus (``beta``), a step earns its reward and beta times the bonus, each divided by its own standard deviation
so far, which is kept with the weights (``reward_scale``, ``bonus_scale``).

Where we deviate, or table E.4 leaves it open: crops by 4 pixels, a projection to 50 numbers with layer normalisation
and tanh (one for the critics and one for the actor), the minimum of two critics, entropy in the backup and log
standard deviations from -20 to 2 are those of the public ``rlpd``, by DrQ's first author. The encoder learns from the
critics alone. Weights start as PyTorch's layers do, not orthogonal. Rewards by likelihood are in nats a code, for
this agent has no scale of its own that adapts to them.

The paper reports, on 15 tasks of the DeepMind Control Suite, that DrQ with VIPER's reward learns, too (plots). By
the true reward it earns 42 of an expert's 49 on ``orbit`` here, after 4,000 steps (one seed of the claim
``dreamer_learns``), and nothing on ``point``, where random actions earn nothing either. Its bonus beside a noisy
screen is in the claim ``noisy_screen``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, CountOrZero, NotEmpty, PositiveShare, Rate, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.errors import UserError
from filmstrip.evals.returns import Returns
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.momentum import follow
from filmstrip.protocols import Batch, Loss, Objective, Phase, as_float
from filmstrip.randomness import normal, uniform
from filmstrip.rl.envs.environment import EnvironmentConfig
from filmstrip.rl.experience import Experience, ExperienceInfo
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant

LOG_STD = (-20.0, 2.0)
"""Range of the logarithm of a policy's standard deviations, before tanh."""


@dataclass(frozen=True, kw_only=True)
class DrQConfig(ObjectiveConfig):
    """Networks of the agent, and what it learns by."""

    size: Count = 64
    """Height and width of frames, pixels."""
    action_dim: CountOrZero = 0
    """Values of an action; zero until the environment determines it."""
    stack: Count = 3
    """Number of the last frames that are seen together."""
    widths: Annotated[tuple[Count, ...], NotEmpty] = (32, 64, 128, 256)
    """Channels of the encoder's convolutions, each of which halves the frame."""
    latent_dim: Count = 50
    """Numbers that actor and critics each see of the encoder."""
    hidden: Annotated[tuple[Count, ...], NotEmpty] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    pad: CountOrZero = 4
    """Largest shift of a frame in training, pixels."""
    discount: ShareBelowOne = 0.99
    tau: PositiveShare = 0.005
    """Share by which the targets of the critics follow them at each step."""
    temperature: Rate = 0.1
    """Temperature at the start."""
    target_entropy: AnyNumber | None = None
    """Entropy of the policy that the temperature aims at, nats; by default minus half the values of an action."""
    beta: Weight = 0.0
    """Weight of the exploration bonus relative to the reward, both by their standard deviations; zero for rewards as
    they are."""
    bonus_widths: Annotated[tuple[Count, ...], NotEmpty] = (32, 64, 64)
    """Channels of the convolutions of the bonus's two networks (random network distillation)."""
    bonus_hidden: Annotated[tuple[Count, ...], NotEmpty] = (512, 512)
    """Widths of their other layers."""

    def bind(self, info: DataInfo) -> DrQConfig:
        """Take the size of frames and actions from the environment.

        Raises:
            UserError: actions are discrete.
        """
        if not isinstance(info, ExperienceInfo):
            return self
        if info.num_actions:
            raise UserError(
                f"DrQ gives actions that are vectors, and the environment has {info.num_actions} discrete ones: "
                "choose another environment"
            )
        return replace(self, action_dim=info.action_dim or self.action_dim, size=info.size or self.size)

    def build(self) -> DrQ:
        """Build the networks with fresh weights.

        Raises:
            UserError: the size of actions is unknown, or frames are too small for the convolutions.
        """
        if not self.action_dim:
            raise UserError("objective.action_dim is not set: the environment determines it")
        return DrQ(self)


class PixelEncoder(nn.Module):
    """Convolutions of 3 x 3 that halve the frame, without padding: ``B C H W -> B D``."""

    def __init__(self, inputs: int, widths: Sequence[int], size: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2) for before, after in itertools.pairwise((inputs, *widths))
        )
        for _ in widths:
            size = (size - 3) // 2 + 1
        if size < 1:
            raise UserError(f"frames are too small for {len(widths)} convolutions that halve them: use fewer widths")
        self.width = widths[-1] * size * size

    def forward(self, x: Tensor) -> Tensor:
        """Flat features of frames in 0..1."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return x.flatten(1)


def _layers(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Projection(nn.Sequential):
    """What a network sees of the encoder: a layer, normalisation, tanh."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.Tanh())


class Critics(nn.Module):
    """The encoder, its projection, and two networks that value actions: ``2 B``."""

    def __init__(self, config: DrQConfig) -> None:
        super().__init__()
        self.encoder = PixelEncoder(3 * config.stack, config.widths, config.size)
        self.project = Projection(self.encoder.width, config.latent_dim)
        sizes = (config.latent_dim + config.action_dim, *config.hidden, 1)
        self.values = nn.ModuleList(_layers(*sizes) for _ in range(2))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Values of actions ``B A`` where the encoder's features are ``B D``."""
        seen = torch.cat([self.project(features), action], dim=1)
        return torch.stack([value(seen)[:, 0] for value in self.values]).float()


class Drawn(NamedTuple):
    """Actions of a policy, with their log-densities."""

    action: Tensor
    log_prob: Tensor


class Actor(nn.Module):
    """A Gaussian whose draws go through tanh."""

    def __init__(self, config: DrQConfig, width: int) -> None:
        super().__init__()
        self.project = Projection(width, config.latent_dim)
        self.policy = _layers(config.latent_dim, *config.hidden, 2 * config.action_dim)

    def forward(self, features: Tensor, noise: Tensor | None) -> Drawn:
        """Actions ``B A`` from the encoder's features ``B D``; with ``noise`` (``B A``, normal) drawn, else the
        middle."""
        mean, log_std = self.policy(self.project(features)).float().chunk(2, dim=1)
        log_std = log_std.clamp(*LOG_STD)
        noise = torch.zeros_like(mean) if noise is None else noise
        before = mean + log_std.exp() * noise
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # ln(1 - tanh(x)^2), in a form that is exact for large x
        squashed = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return Drawn(before.tanh(), (density - squashed).sum(dim=1))


class RunningScale(nn.Module):
    """The mean and the variance of all values so far (Chan et al. 1979), kept with the weights."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(shape, dtype=torch.float64))

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Take in values ``B ...``."""
        values = values.double()
        fresh, count = values.mean(dim=0), len(values)
        total = self.count + count
        apart = fresh - self.mean
        self.square += (values - fresh).square().sum(dim=0) + apart.square() * self.count * count / total
        self.mean += apart * count / total
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """The standard deviation, float32; 1 before there are two values."""
        variance = self.square / self.count.clamp(min=1)
        return torch.where(variance > 1e-12, variance, 1.0).sqrt().float()


class Distillation(nn.Module):
    """The bonus of a frame: how badly a network predicts what a random, fixed one says of it.

    Frames are normalised pixel by pixel and clipped to 5 standard deviations.
    """

    def __init__(self, config: DrQConfig) -> None:
        super().__init__()
        self.pixels = RunningScale(3, config.size, config.size)
        self.target = self._network(config).requires_grad_(False)
        self.predictor = self._network(config)

    @staticmethod
    def _network(config: DrQConfig) -> nn.Sequential:
        encoder = PixelEncoder(3, config.bonus_widths, config.size)
        return nn.Sequential(encoder, _layers(encoder.width, *config.bonus_hidden))

    def forward(self, frame: Tensor) -> Tensor:
        """Errors ``B`` of frames in 0..1, ``B 3 H W``."""
        seen = ((frame - self.pixels.mean.float()) / self.pixels.std).clamp(-5, 5)
        with torch.no_grad():
            wanted = self.target(seen)
        return (self.predictor(seen) - wanted).float().square().mean(dim=1)


class DrQ(Objective):
    """Losses of critics, actor, temperature and, with a bonus, its predictor; and the agent itself."""

    requires = ("video", "action", "reward", "terminal", "first", "seed")

    def __init__(self, config: DrQConfig) -> None:
        super().__init__()
        self.config = config
        self.critics, self.target = Critics(config), Critics(config)
        self.target.load_state_dict(self.critics.state_dict())
        self.target.requires_grad_(False)
        self.actor = Actor(config, self.critics.encoder.width)
        self.log_temperature = nn.ParameterList([nn.Parameter(torch.tensor(math.log(config.temperature)))])
        self.reward_scale, self.bonus_scale = RunningScale(), RunningScale()
        self.distillation = Distillation(config) if config.beta else None
        own = config.target_entropy
        self.target_entropy = -config.action_dim / 2 if own is None else own

    @property
    def temperature(self) -> Tensor:
        """Weight of the entropy, float32."""
        return self.log_temperature[0].exp()

    def phases(self) -> tuple[Phase, ...]:
        """Critics with the encoder, then the actor, the temperature, and what predicts the bonus."""
        found = [
            Phase("critic", (self.critics,)),
            Phase("actor", (self.actor,)),
            Phase("temperature", (self.log_temperature,)),
        ]
        if self.distillation is not None:
            found.append(Phase("bonus", (self.distillation.predictor,)))
        return tuple(found)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one phase.

        Raises:
            UserError: sequences are shorter than the frames that are seen together and the next one.
        """
        if phase == "bonus":
            assert self.distillation is not None, "it has the phase"
            error = self.distillation(as_float(batch["video"][:, -1])).mean()
            return Loss(error, {"error": error.detach()})
        before, after = self.seen(batch)
        if phase == "critic":
            return self._critic_loss(batch, before, after)
        with torch.no_grad():
            features = self.critics.encoder(self._shifted(before, batch["seed"], "drq.shift.now"))
        noise = normal(batch["seed"], self.config.action_dim, "drq.actor")
        drawn = self.actor(features, noise)
        if phase == "temperature":
            surplus = -drawn.log_prob.detach().mean() - self.target_entropy
            return Loss(self.temperature * surplus, {"temperature": self.temperature.detach()})
        value = self.critics(features, drawn.action).min(dim=0).values
        loss = (self.temperature.detach() * drawn.log_prob - value).mean()
        return Loss(loss, {"entropy": -drawn.log_prob.detach().mean()})

    def seen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the agent saw before and after the last action of each sequence, ``B 3k H W`` uint8.

        Frames of an earlier episode are replaced by the first one of the episode.
        """
        k, frames = self.config.stack, batch["video"].shape[1]
        if frames <= k:
            raise UserError(
                f"sequences have {frames} frames, and {k} are seen together before and after an action: set "
                f"data.reads.length to {k + 1}"
            )
        place = torch.arange(frames, device=batch["first"].device)
        begins = torch.where(batch["first"], place, 0).cummax(dim=1).values  # where the episode of each frame begins
        before = torch.maximum(place[-k - 1 : -1], begins[:, -2:-1])
        after = torch.maximum(place[-k:], begins[:, -1:])
        row = torch.arange(len(begins), device=begins.device)[:, None]
        return batch["video"][row, before].flatten(1, 2), batch["video"][row, after].flatten(1, 2)

    def _shifted(self, frames: Tensor, seed: Tensor, use: str) -> Tensor:
        """Frames in 0..1, each row shifted by up to ``pad`` pixels with its edge repeated; not in evaluation."""
        video, pad = as_float(frames), self.config.pad
        if not pad or not self.training:
            return video
        size = video.shape[-1]
        padded = F.pad(video, (pad,) * 4, mode="replicate")
        start = (uniform(seed, 2, use) * (2 * pad + 1)).long()
        place = torch.arange(size, device=video.device)
        rows, columns = start[:, :1] + place, start[:, 1:] + place
        batch = torch.arange(len(video), device=video.device)[:, None, None]
        return padded.movedim(1, 3)[batch, rows[:, :, None], columns[:, None, :]].movedim(3, 1)

    def _critic_loss(self, batch: Batch, before: Tensor, after: Tensor) -> Loss:
        reward = self.rewards(batch)
        with torch.no_grad():
            later = self._shifted(after, batch["seed"], "drq.shift.next")
            noise = normal(batch["seed"], self.config.action_dim, "drq.next")
            drawn = self.actor(self.critics.encoder(later), noise)
            value = self.target(self.target.encoder(later), drawn.action).min(dim=0).values
            goes_on = 1 - batch["terminal"][:, -1].float()
            wanted = reward + self.config.discount * goes_on * (value - self.temperature * drawn.log_prob)
        features = self.critics.encoder(self._shifted(before, batch["seed"], "drq.shift.now"))
        values = self.critics(features, batch["action"][:, -1])
        loss = (values - wanted).square().sum(dim=0).mean()
        return Loss(loss, {"value": values.detach().mean(), "reward": reward.mean()})

    @torch.no_grad()
    def rewards(self, batch: Batch) -> Tensor:
        """What the last action of each sequence earned, ``B``, with the bonus; statistics take it in, in training."""
        reward = batch["reward"][:, -1].float()
        if self.distillation is None:
            return reward
        frame = as_float(batch["video"][:, -1])
        bonus = self.distillation(frame)
        if self.training:
            self.distillation.pixels.add(frame)
            self.reward_scale.add(reward)
            self.bonus_scale.add(bonus)
        return reward / self.reward_scale.std + self.config.beta * bonus / self.bonus_scale.std

    def after_step(self, step: int) -> None:
        """Move the targets towards the critics."""
        follow(self.target, self.critics, 1 - self.config.tau, step)

    def decide(
        self, frame: Tensor, memory: dict[str, Tensor] | None, first: Tensor, *, seed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`~filmstrip.protocols.Agent`: the memory is the last frames."""
        alone = frame[:, None].expand(-1, self.config.stack, -1, -1, -1)
        if memory is not None:
            stack = torch.cat([memory["frames"][:, 1:], frame[:, None]], dim=1)
            alone = torch.where(first.view(-1, 1, 1, 1, 1), alone, stack)
        noise = None if seed is None else normal(seed, self.config.action_dim, "drq.act")
        features = self.critics.encoder(as_float(alone.flatten(1, 2)))
        return self.actor(features, noise).action, {"frames": alone}


def tiny() -> Run:
    """``point`` at 32 x 32 pixels by small networks; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            reads=Experience(env=EnvironmentConfig(name="point", size=32, max_steps=20), length=4, prefill=40),
            clip=Clip(num_frames=4, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
            num_workers=0,
        ),
        objective=DrQConfig(
            size=32, action_dim=2, widths=(8, 16, 16), latent_dim=16, hidden=(32, 32), bonus_hidden=(32,)
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(100), clip_grad=None),
        evals=(Returns(episodes=2),),
    )


def tiny_bonus() -> Run:
    """The same with a bonus for frames that are new."""
    run = tiny()
    return replace(run, objective=replace(run.objective, beta=1.0, bonus_widths=(8, 8), bonus_hidden=(16, 16)))


def point() -> Run:
    """``point`` at 32 x 32 pixels, with its true reward: 8,000 steps, the first 500 at random."""
    run = tiny()
    return replace(
        run,
        data=replace(
            run.data, reads=Experience(env=EnvironmentConfig(name="point", size=32), prefill=500), batch_size=64
        ),
        objective=DrQConfig(size=32, action_dim=2, widths=(16, 32, 32), hidden=(128, 128)),
        train=Loop(length=Steps(8_000), clip_grad=None, eval_every=1_000),
        evals=(Returns(),),
    )


def viper_point() -> Run:
    """The same by the likelihood of ``--reward RUN``, such as one of ``rewards.viper:point``, and a bonus."""
    run = point()
    return replace(
        run, objective=replace(run.objective, beta=1.0, bonus_widths=(16, 32, 32), bonus_hidden=(128, 128))
    )


def dmc() -> Run:
    """The DeepMind Control Suite by the task's own reward (table E.4): 64 x 64 pixels, an action for two steps."""
    return Run(
        data=Data(
            reads=Experience(env=EnvironmentConfig(name="dm_control/walker-walk", size=64, action_repeat=2)),
            clip=Clip(num_frames=4, stride=1, size=64, short_side=(64, 64)),
            augment=Augment(mirror=0.0),
            batch_size=256,
            num_workers=0,
        ),
        objective=DrQConfig(),
        optim=AdamW(lr=3e-4, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(500_000), clip_grad=None, eval_every=10_000),
        evals=(Returns(),),
    )


def viper_dmc() -> Run:
    """The same by the likelihood of ``--reward RUN``, such as one of ``rewards.viper:dmc``, and a bonus."""
    run = dmc()
    return replace(run, objective=replace(run.objective, beta=1.0))
