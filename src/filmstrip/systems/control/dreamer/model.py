"""DreamerV3's configuration, the losses of its phases, and how it acts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from filmstrip.bounds import Ascending, Count, CountOrZero, PositiveShare, Rate, Share, ShareBelowOne, Weight
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.nn.normed_layers import FrameEncoder, Perceptron
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.momentum import follow
from filmstrip.protocols import Batch, Loss, Objective, Phase, as_float
from filmstrip.randomness import uniform
from filmstrip.rl.experience import ExperienceInfo
from filmstrip.systems.control.dreamer.behaviour import (
    Actor,
    Categorical,
    Critic,
    Ensemble,
    Imagined,
    ReturnScale,
    lambda_returns,
)
from filmstrip.systems.control.dreamer.layers import BINS, FrameDecoder, expected, two_hot_loss
from filmstrip.systems.control.dreamer.rssm import RSSM, Observed, State, divergences

REWARD, BONUS = "reward", "bonus"
"""Names of the critics: of the reward, and of the bonus for exploration."""


@dataclass(frozen=True, kw_only=True)
class DreamerConfig(ObjectiveConfig):
    """Networks of the agent, and what it learns by."""

    size: Count = 64
    """Height and width of frames, pixels: 4 times a power of two."""
    action_dim: CountOrZero = 0
    """Values of an action that is a vector; zero until the environment determines it, and for discrete actions."""
    num_actions: CountOrZero = 0
    """Number of discrete actions; zero until the environment determines it, and for vectors."""
    channels: Count = 32
    """Channels of the encoder's first convolution and of the decoder's last but one."""
    memory_dim: Count = 512
    """Numbers of the recurrent state."""
    num_latents: Count = 32
    """Number of categorical latents of a state."""
    latent_classes: Count = 32
    """Classes of each latent."""
    width: Count = 512
    """Width of all hidden layers."""
    depth: Count = 2
    """Number of hidden layers of heads, actor and critics."""
    unimix: ShareBelowOne = 0.01
    """Share of even probabilities in those of latents and of discrete actions."""
    image_weight: Rate = 1.0
    """Weight of the squared error of frames, summed over pixels and colours."""
    free_nats: Weight = 1.0
    """Divergence of the posterior from the prior that is no loss, nats."""
    dynamics_weight: Weight = 0.5
    """Weight of that divergence as a loss of the prior."""
    representation_weight: Weight = 0.1
    """Its weight as a loss of the posterior."""
    horizon: Count = 15
    """Number of actions that are imagined."""
    discount: ShareBelowOne = 1 - 1 / 333
    return_lambda: Share = 0.95
    """Weight of longer returns over shorter ones."""
    return_decay: ShareBelowOne = 0.99
    """Decay of the moving percentiles by which returns are scaled."""
    entropy: Weight = 3e-4
    """Weight of the policy's entropy, beside returns in their scale."""
    std: Annotated[tuple[Rate, Rate], Ascending] = (0.1, 1.0)
    """Range of the standard deviation of actions that are vectors."""
    slow_every: Count = 1
    """Number of steps after which the slow critic moves."""
    slow_share: PositiveShare = 0.02
    """Share by which it then moves towards the critic; 1 copies it."""
    ends: bool = True
    """Whether imagined episodes may end. Off, they go on for ever: for rewards below zero, which would make an early
    end attractive."""
    beta: Weight = 0.0
    """Weight of the exploration bonus (Plan2Explore) relative to the reward, each by its own critic and scale; zero
    for none."""
    ensemble_size: Count = 10
    """Number of networks whose disagreement is the bonus."""

    def bind(self, info: DataInfo) -> DreamerConfig:
        """Take the size of frames and the actions from the environment."""
        if not isinstance(info, ExperienceInfo):
            return self
        size = info.size or self.size
        if not (info.action_dim or info.num_actions):
            return replace(self, size=size)
        return replace(self, action_dim=info.action_dim, num_actions=info.num_actions, size=size)

    def build(self) -> Dreamer:
        """Build the networks with fresh weights.

        Raises:
            UserError: the actions are unknown or of two kinds, or frames are not 4 times a power of two.
        """
        if bool(self.action_dim) == bool(self.num_actions):
            raise UserError(
                f"objective.action_dim is {self.action_dim} and num_actions {self.num_actions}: one of them is above "
                "zero, and the environment determines which"
            )
        return Dreamer(self)


class WorldModel(nn.Module):
    """Encoder, state-space model, and the heads that say what a state looks like, earns, and whether it goes on."""

    def __init__(self, config: DreamerConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config.channels, config.size)
        self.dynamics = RSSM(
            frame=self.encoder.width,
            action=config.action_dim or config.num_actions,
            memory=config.memory_dim,
            latents=config.num_latents,
            classes=config.latent_classes,
            hidden=config.width,
            unimix=config.unimix,
        )
        self.features = config.num_latents * config.latent_classes + config.memory_dim
        self.decoder = FrameDecoder(self.features, config.channels, config.size)
        self.reward = Perceptron(self.features, config.width, config.depth, BINS, scale=0.0)
        self.goes_on = Perceptron(self.features, config.width, config.depth, 1)

    def observe(self, batch: Batch, numbers: Tensor | None) -> Observed:
        """The states of a batch's sequences; see :meth:`RSSM.observe`."""
        codes = self.encoder(as_float(batch["video"].flatten(0, 1))).unflatten(0, batch["video"].shape[:2])
        return self.dynamics.observe(codes, batch["action"], batch["first"], numbers)


class Dreamer(Objective):
    """Losses of world model, actor and critics, the latter two learning in imagination; and the agent itself."""

    requires = ("video", "action", "reward", "terminal", "first", "seed")
    leaves_out_unknown_rewards = True

    def __init__(self, config: DreamerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = WorldModel(config)
        actions, inputs = config.action_dim or config.num_actions, self.model.features
        sizes = (inputs, config.width, config.depth)
        self.actor = Actor(
            *sizes, actions=actions, discrete=bool(config.num_actions), std=config.std, unimix=config.unimix
        )
        names = (REWARD, BONUS) if config.beta else (REWARD,)
        self.critics = nn.ModuleDict({name: Critic(*sizes) for name in names})
        self.slow_critics = nn.ModuleDict({name: Critic(*sizes) for name in names})
        self.slow_critics.load_state_dict(self.critics.state_dict())
        self.slow_critics.requires_grad_(False)
        self.scales = nn.ModuleDict({name: ReturnScale(config.return_decay) for name in names})
        self.ensemble = (
            Ensemble(
                config.ensemble_size,
                inputs + actions,
                config.width,
                config.depth,
                config.num_latents * config.latent_classes,
            )
            if config.beta
            else None
        )
        self._seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._dreamt: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def phases(self) -> tuple[Phase, ...]:
        """The world model, what foretells its latents for the bonus, then actor and critics."""
        found = [Phase("model", (self.model,)), Phase("actor", (self.actor,)), Phase("critic", (self.critics,))]
        if self.ensemble is not None:
            found.insert(1, Phase("ensemble", (self.ensemble,)))
        return tuple(found)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one phase. Later ones use what the earlier ones of the same batch found, as published, or find
        it anew."""
        batch = {**batch, "action": self._vectors(batch["action"])}
        later = {"ensemble": self._ensemble_loss, "actor": self._actor_loss, "critic": self._critic_loss}
        return later.get(phase, self._model_loss)(batch)

    def _vectors(self, action: Tensor) -> Tensor:
        """Actions as the networks take them: vectors as they are, numbers one-hot."""
        return F.one_hot(action, self.config.num_actions).float() if self.config.num_actions else action

    def _observe(self, batch: Batch) -> Observed:
        steps = batch["video"].shape[1]
        numbers = uniform(batch["seed"], steps * self.config.num_latents, "dreamer.posterior")
        observed = self.model.observe(batch, numbers.unflatten(1, (steps, -1)))
        self._seen[batch["seed"]] = observed.state.detach()
        return observed

    def _states(self, batch: Batch) -> State:
        """The states of a batch, without gradient."""
        if batch["seed"] not in self._seen:
            with torch.no_grad():
                self._observe(batch)
        return self._seen[batch["seed"]]

    def _model_loss(self, batch: Batch) -> Loss:
        observed, config = self._observe(batch), self.config
        features, model = observed.state.features, self.model
        image = (model.decoder(features) - as_float(batch["video"])).square().sum(dim=(-3, -2, -1)).mean()
        known = ~batch["reward"].isnan()
        reward = two_hot_loss(model.reward(features), batch["reward"].nan_to_num()) * known
        reward = reward.sum() / known.sum().clamp(min=1)
        goes_on = (1 - batch["terminal"].float()) if config.ends else torch.ones_like(batch["reward"])
        end = F.binary_cross_entropy_with_logits(model.goes_on(features)[..., 0], goes_on)
        dynamics, representation = (one.mean() for one in divergences(observed, config.free_nats))
        loss = config.image_weight * image + reward + end
        loss = loss + config.dynamics_weight * dynamics + config.representation_weight * representation
        entropy = -(observed.posterior.exp() * observed.posterior).sum(dim=(-2, -1)).mean()
        found = {"image": image, "reward": reward, "end": end, "divergence": dynamics, "latent_entropy": entropy}
        return Loss(loss, {name: value.detach() for name, value in found.items()})

    def _ensemble_loss(self, batch: Batch) -> Loss:
        """Squared errors of the next latents, summed over them and over the networks; not over the start of an
        episode."""
        assert self.ensemble is not None, "it has the phase"
        state = self._states(batch)
        foretold = self.ensemble(state.features[:, :-1], batch["action"][:, 1:])
        error = (foretold - state.latent[:, 1:].flatten(-2)).square().sum(dim=-1).sum(dim=0)
        known = (~batch["first"][:, 1:]).float()
        loss = (error * known).sum() / known.sum().clamp(min=1)
        return Loss(loss, {"error": loss.detach() / len(self.ensemble.members)})

    def imagine(self, batch: Batch, *, draws: bool = True) -> Imagined:
        """Trajectories from every state of a batch, with their returns. Where actions are vectors, gradients reach
        them from all that follows. Without ``draws`` the middle and the most probable are taken."""
        config, model = self.config, self.model
        state = self._states(batch).flatten()
        seed, steps = batch["seed"], batch["video"].shape[1]
        features, actions = [state.features], []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not config.num_actions):
            for step in range(config.horizon):
                policy = self.actor(features[-1].detach().unflatten(0, (len(seed), steps)))
                action = policy.draw(seed if draws else None, "dreamer.actor", step).flatten(0, 1)
                numbers = uniform(seed, steps * config.num_latents, "dreamer.imagine", step) if draws else None
                state = model.dynamics.imagine(
                    state, action, None if numbers is None else numbers.view(-1, config.num_latents)
                )
                features.append(state.features)
                actions.append(action)
            seen, done = torch.stack(features, dim=1), torch.stack(actions, dim=1)
            goes_on = model.goes_on(seen[:, 1:])[..., 0].sigmoid() if config.ends else torch.ones_like(seen[:, 1:, 0])
            discount = config.discount * goes_on
            alive = 1 - batch["terminal"].flatten().float() if config.ends else torch.ones_like(seen[:, 0, 0])
            weight = torch.cat([alive[:, None], discount[:, :-1].detach()], dim=1).cumprod(dim=1)
            returns, values = {}, {}
            for name, critic in self.critics.items():
                value = critic.value(seen)
                returns[name] = lambda_returns(self._rewards(name, seen, done), discount, value, config.return_lambda)
                values[name] = value[:, :-1]
        return Imagined(seen, done, weight, returns, values)

    def _rewards(self, name: str, features: Tensor, actions: Tensor) -> Tensor:
        """What each action of trajectories earns by a critic's reward, ``N H``."""
        if name == REWARD:
            return expected(self.model.reward(features[:, 1:]))
        assert self.ensemble is not None, "it has the critic"
        return self.ensemble.disagreement(features[:, :-1], actions)

    def advantage(self, imagined: Imagined) -> Tensor:
        """How much better than expected trajectories went from each state, ``N H``: of every critic in its own scale,
        weighted 1 and beta, by the sum of these."""
        shares = {REWARD: 1.0, BONUS: self.config.beta}
        found = torch.zeros_like(imagined.weight)
        for name, returns in imagined.returns.items():
            scale = self.scales[name]
            if self.training:
                scale.add(returns)
            found = found + shares[name] / sum(shares.values()) * (returns - imagined.values[name]) / scale.scale
        return found

    def _actor_loss(self, batch: Batch) -> Loss:
        imagined = self.imagine(batch)
        advantage = self.advantage(imagined)
        policy = self.actor(imagined.features[:, :-1].detach())
        if isinstance(policy, Categorical):
            gain = policy.log_prob(imagined.actions) * advantage.detach()
        else:
            gain = advantage
        entropy = policy.entropy()
        loss = -(imagined.weight * (gain + self.config.entropy * entropy)).mean()
        kept = Imagined(
            imagined.features.detach(),
            imagined.actions.detach(),
            imagined.weight,
            {name: value.detach() for name, value in imagined.returns.items()},
            {name: value.detach() for name, value in imagined.values.items()},
        )
        self._dreamt[batch["seed"]] = kept
        found = {"entropy": entropy, "advantage": advantage} | {
            f"{name}_return": value for name, value in imagined.returns.items()
        }
        return Loss(loss, {name: value.detach().mean() for name, value in found.items()})

    def _critic_loss(self, batch: Batch) -> Loss:
        """Cross-entropy to returns, and to what the slow critic says; weighted as states are reached."""
        imagined = self._dreamt.get(batch["seed"])
        if imagined is None:
            with torch.no_grad():
                imagined = self.imagine(batch)
        features = imagined.features[:, :-1]
        loss, metrics = imagined.weight.new_zeros(()), {}
        for name, critic in self.critics.items():
            logits = critic(features)
            with torch.no_grad():
                slow = self.slow_critics[name].value(features)
            error = two_hot_loss(logits, imagined.returns[name]) + two_hot_loss(logits, slow)
            loss = loss + (imagined.weight * error).mean()
            metrics[f"{name}_value"] = expected(logits.detach()).mean()
        return Loss(loss, metrics)

    def after_step(self, step: int) -> None:
        """Move the slow critics, and forget what was imagined."""
        self._seen.clear()
        self._dreamt.clear()
        if step % self.config.slow_every == 0:
            follow(self.slow_critics, self.critics, 1 - self.config.slow_share, step)

    def decide(
        self, frame: Tensor, memory: dict[str, Tensor] | None, first: Tensor, *, seed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`~filmstrip.protocols.Agent`: the memory is the state of the world model and the last action. At
        its best it takes the most probable latents and the middle of the policy."""
        state, action = None, frame.new_zeros(len(frame), self.actor.actions, dtype=torch.float32)
        if memory is not None:
            state, action = State(memory["memory"], memory["latent"]), memory["action"]
        numbers = None if seed is None else uniform(seed, self.config.num_latents, "dreamer.see")
        state = self.model.dynamics.see(state, action, self.model.encoder(as_float(frame)), first, numbers)
        action = self.actor(state.features).draw(seed, "dreamer.act")
        kept = {"memory": state.memory, "latent": state.latent, "action": action}
        return action.argmax(dim=1) if self.config.num_actions else action, kept
