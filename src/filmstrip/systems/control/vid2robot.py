"""Vid2Robot: a policy that does what it is shown by a film of another body at the task.

One image encoder sees the frames of the prompt and the last frames of the robot; two resamplers make a few tokens
of each; the robot's tokens attend to the prompt's, and queries of the action attend to those and choose a bin for
each of its numbers. Beside cloning, three losses bring films of both bodies together: their frames by temporal cycle
consistency, whole films of the same task by SigLIP's contrast, and films and the name of their task by the same.
Jain et al., "Vid2Robot: End-to-end Video-conditioned Policy Learning with Cross-Attention Transformers", RSS 2024
(equations 1 to 4, tables IV to VI); cycle consistency: Dwibedi et al., "Temporal Cycle-Consistency Learning", 2019.

    filmstrip train control.vid2robot:pick --out runs/shown
    filmstrip eval runs/shown --protocol prompted_success
    filmstrip eval runs/shown --protocol returns --env pick/left/steel --prompt film.mp4
    filmstrip rl play runs/shown --env pick/left/steel --prompt film.mp4 --out episodes

Data (:mod:`filmstrip.data.kinds.prompted`): the robot's films with actions in ``robot/TASK/*.mp4``, and films of any
other body in ``prompts/TASK/*.mp4``. The set here is ``pick``: four goals that look alike, of which nothing but the
film of an arm that looks otherwise, in another scene, says which one is meant.

What is ours: ``robot`` has the paper's sizes and rates, and our weight decay and norm of gradients. Where the paper
says nothing: resamplers are Flamingo's (queries are among what they attend to), other layers attend to their context
alone, frames have learned vectors of their times, places of cycle consistency are shares of a film's length, and each
number of each action of the horizon has a query. Other than published: films of one task are no negatives of one
another, for tasks are few here; names of tasks are read byte by byte by a recurrent layer that learns (a frozen text
encoder); prompts have a frame of each equal part of a film (drawn ones, with both ends); windows of robots' frames
lie within clips, so that the repeated first frame of an episode is met in use only; augmentation changes the robot's
windows alone. Actions are learnt at every place of a clip, whose frames are encoded once. The small presets have
convolutions in place of the transformer, and take the mean of an action's bins (``objective.acts``) where the paper
takes the likeliest: an expert that is often at full speed has one bin for that, and many for all that is slower.

The paper reports (real robots, 72 trials of nine tasks): 53% success after people's films and 55% after robots',
where BC-Z has 31% and 53%. What is measured here is in the claim ``vid2robot_prompts``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, Weight
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.kinds.prompted import VOCABULARY, Prompted
from filmstrip.errors import UserError
from filmstrip.evals.prompted_success import PromptedSuccess
from filmstrip.inference import encoder_of
from filmstrip.nn.attention import Attention
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normed_layers import FrameEncoder, Layer
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import normalised, sigmoid_loss
from filmstrip.objectives.teachers import EncoderOnly, ImageTransformerConfig
from filmstrip.protocols import Batch, Features, Grid, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.rl.films import PromptedFilms
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

Choice = Literal["likeliest", "mean"]


@dataclass(frozen=True, kw_only=True)
class Vid2RobotConfig(ObjectiveConfig):
    """The networks, and the weights of the losses."""

    encoder: ObjectiveConfig
    """Method whose encoder sees single frames, of the prompt and of the robot."""
    prompt_frames: Count = 16
    """Number of frames of a prompt."""
    seen_frames: Count = 8
    """Number of the robot's last frames that are seen together."""
    horizon: Count = 4
    """Number of actions that are predicted, the next one first: it alone is taken."""
    num_frames: Count = 12
    """Number of frames in a clip: at each that has ``seen_frames`` up to it, and ``horizon`` after it, actions are
    learnt."""
    width: Count = 768
    """Channels of a token."""
    num_heads: Count = 8
    """Attention heads of the layers between state, prompt and action."""
    resampler_heads: Count = 12
    """Attention heads of the resamplers."""
    num_queries: Count = 64
    """Number of tokens that a prompt becomes, and the robot's frames become."""
    resampler_depth: Count = 2
    """Number of layers by which they become so many."""
    depth: Count = 4
    """Number of layers in which the robot's tokens attend to the prompt's."""
    decoder_depth: Count = 4
    """Number of layers in which the action's queries attend to those."""
    mlp_ratio: Rate = 4.0
    bins: Count = 256
    """Number of equal parts of -1..1, one of which is chosen for each number of an action."""
    acts: Choice = field(default="likeliest", metadata=FREE)
    """What is taken of each number's bins: the centre of the likeliest one, or the mean of all centres."""
    action_dim: CountOrZero = 0
    """Values of an action; zero until the data determine it."""
    sees_prompt: bool = True
    """Whether the prompt is seen; otherwise it is black in training and in use, for comparison."""
    contrast_dim: Count = 768
    """Dimension of the vectors that are compared."""
    align_weight: Weight = 1.0
    """Weight of the cycle consistency of frames, where that of the actions' loss is 1."""
    video_weight: Weight = 1.0
    """Weight of the contrast of films of both bodies."""
    text_weight: Weight = 1.0
    """Weight of the contrast of films and names of tasks."""

    def bind(self, info: DataInfo) -> Vid2RobotConfig:
        """Take the size of actions from the data.

        Raises:
            UserError: the videos have no actions that are vectors, or others than were set.
        """
        if not isinstance(info, ClipInfo) or not info.action_dim:
            if self.action_dim:
                return self
            raise UserError("the robot's films have no actions that are vectors, which a policy learns from")
        if self.action_dim not in (0, info.action_dim):
            raise UserError(
                f"objective.action_dim is {self.action_dim}, and the robot's films have {info.action_dim}"
            )
        return replace(self, action_dim=info.action_dim)

    def for_clip(self, clip: Clip) -> Vid2RobotConfig:
        """The encoder for frames of another size, and as many frames in a clip."""
        encoder = self.encoder.for_clip(replace(clip, num_frames=1))
        return replace(self, encoder=encoder, num_frames=clip.num_frames)

    def build(self) -> Vid2Robot:
        """Build the networks with fresh weights.

        Raises:
            UserError: the size of actions is unknown, or clips have too few frames.
        """
        if not self.action_dim:
            raise UserError("objective.action_dim is not set: the data determine it, or set it to an action's values")
        if self.num_frames < (needed := self.seen_frames + self.horizon):
            raise UserError(
                f"clips have {self.num_frames} frames, and {self.seen_frames} are seen before {self.horizon} actions "
                f"that come with a frame each: set --data.clip.num-frames to {needed} or more"
            )
        return Vid2Robot(self)


@dataclass(frozen=True, kw_only=True)
class ConvolutionsConfig(ObjectiveConfig):
    """Convolutions in place of an image transformer, which learn from few films."""

    size: Count = 32
    """Height and width of frames, pixels: 4 times a power of two."""
    channels: Count = 16
    """Channels of the first convolution, of which each next one has twice as many."""
    tokens: Count = 4
    """Number of tokens of a frame."""
    token_width: Count = 64
    """Channels of each."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(Convolutions(self))


class Convolutions(nn.Module):
    """An encoder of single frames with a few tokens, each of which is told what all places show."""

    def __init__(self, config: ConvolutionsConfig) -> None:
        super().__init__()
        self.width, self.count = config.token_width, config.tokens
        self.convs = FrameEncoder(config.channels, config.size)
        self.out = Layer(self.convs.width, self.count * self.width)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Tokens of ``B T C H W`` video, frame by frame; layers there are none."""
        vectors = self.out(self.convs(as_float(video.flatten(0, 1))))
        tokens = rearrange(vectors, "(b t) (m c) -> b (t m) c", t=video.shape[1], m=self.count)
        return Features(tokens, Grid(video.shape[1], 1, self.count))


class CrossLayer(nn.Module):
    """Tokens attend to a context, then pass a feed-forward network: ``B N D`` and ``B M D``.

    With ``themselves`` they are part of what they attend to, as in Flamingo's resampler.
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, *, themselves: bool = False) -> None:
        super().__init__()
        self.norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, num_heads, context_width=width)
        self.mlp = MLP(width, round(width * mlp_ratio))
        self.themselves = themselves

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The tokens after the layer."""
        queries, context = self.norm(x), self.context_norm(context)
        x = x + self.attention(queries, context=torch.cat([context, queries], 1) if self.themselves else context)
        return x + self.mlp(self.mlp_norm(x))


class CrossLayers(nn.Module):
    """Such layers and a norm."""

    def __init__(self, depth: int, heads: int, config: Vid2RobotConfig, *, themselves: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CrossLayer(config.width, heads, config.mlp_ratio, themselves=themselves) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens ``B N D``, or ``N D`` for the same ones in all rows, with a context ``B M D``."""
        x = x.expand(context.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)


class Resampler(nn.Module):
    """A few tokens of the image encoder's many: of frames ``B T M C``, with the time of each, ``B N D``."""

    def __init__(self, frames: int, inputs: int, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.width)
        self.time = nn.Parameter(torch.randn(frames, 1, config.width) * 0.02)
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.02)
        self.layers = CrossLayers(config.resampler_depth, config.resampler_heads, config, themselves=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """``B T M C`` to ``B N D``."""
        return self.layers(self.queries, (self.project(tokens) + self.time).flatten(1, 2))


class Pool(nn.Module):
    """One vector of length one of a film's tokens, which a learned query attends to: ``B N D -> B F``."""

    def __init__(self, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, config.width) * 0.02)
        self.layer = CrossLayer(config.width, config.num_heads, config.mlp_ratio)
        self.head = nn.Linear(config.width, config.contrast_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens."""
        return normalised(self.head(self.layer(self.query.expand(tokens.shape[0], -1, -1), tokens)[:, 0]))


class Contrast(nn.Module):
    """SigLIP's loss of pairs that belong together where their tasks are the same, with its own scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, rows: Tensor, others: Tensor, same: Tensor) -> Tensor:
        """The loss of vectors ``rows`` and ``others``, ``B F`` each; ``same`` (``B B`` bool): which belong."""
        return sigmoid_loss(rows @ others.T * self.log_scale.exp() + self.bias, same)


class Vid2Robot(Objective):
    """The loss of cloning, and of what brings films of two bodies together; and the policy itself."""

    requires = ("video", "action", "prompt", "film", "label", "text", "text_length")

    def __init__(self, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.config, self.seen_frames = config, config.seen_frames
        self.prompt_frames, self.action_dim = config.prompt_frames, config.action_dim
        self.encoder = encoder_of(config.encoder.build())
        self.size: int | None = getattr(config.encoder, "size", None)
        inputs = self.encoder.width
        self.prompt_tokens = Resampler(config.prompt_frames, inputs, config)
        self.state_tokens = Resampler(self.seen_frames, inputs, config)
        self.state_prompt = CrossLayers(config.depth, config.num_heads, config)
        self.action_queries = nn.Parameter(torch.randn(config.horizon * config.action_dim, config.width) * 0.02)
        self.decoder = CrossLayers(config.decoder_depth, config.num_heads, config)
        self.to_bins = nn.Linear(config.width, config.bins)
        self.align_pool = MLP(inputs, config.width, config.contrast_dim)
        self.video_pool, self.text_pool = Pool(config), Pool(config)
        self.video_contrast, self.text_contrast = Contrast(), Contrast()
        self.letters = nn.Embedding(VOCABULARY.size, config.contrast_dim)
        self.reader = nn.GRU(config.contrast_dim, config.contrast_dim, batch_first=True)
        centres = (torch.arange(config.bins) + 0.5) / config.bins * 2 - 1
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted mean of the losses."""
        config, size = self.config, self.seen_frames
        seen = batch["video"][:, : -config.horizon]
        prompt = self._encoded(self._shown(batch["prompt"]))
        shown = self.prompt_tokens(prompt)
        windows = rearrange(self._encoded(seen).unfold(1, size, 1), "b n m c t -> (b n) t m c")
        steps = seen.shape[1] - size + 1  # places in each clip at which actions are learnt
        logits = self.logits(repeat(shown, "b n d -> (b s) n d", s=steps), windows)
        actions = batch["action"][:, size:].unfold(1, config.horizon, 1)
        wanted = self._bins(rearrange(actions, "b s a h -> (b s) h a"))
        losses = {"cloned": F.cross_entropy(logits.flatten(0, 2), wanted.flatten())}
        weights = {"align": config.align_weight, "videos": config.video_weight, "texts": config.text_weight}
        if any(weights.values()):
            losses |= self._contrasts(prompt, shown, batch)
        weights = {name: value for name, value in weights.items() if name in losses} | {"cloned": 1.0}
        total = sum((weights[name] * losses[name] for name in losses), logits.new_zeros(())) / sum(weights.values())
        right = (logits.argmax(dim=-1) == wanted).float().mean()
        return Loss(total, {name: value.detach() for name, value in losses.items()} | {"accuracy": right})

    def _contrasts(self, prompt: Tensor, shown: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the prompts (their frames' tokens ``B P M C``, and those of the resampler) and the robot's films,
        which the prompt encoder sees, too, have in common."""
        film = self._encoded(batch["film"])
        own, same = self.prompt_tokens(film), batch["label"][:, None] == batch["label"]
        frames = self.align_pool(prompt.mean(dim=2)).float(), self.align_pool(film.mean(dim=2)).float()
        named = self.named(batch["text"], batch["text_length"])
        contrast = self.text_contrast
        texts = (contrast(self.text_pool(shown), named, same) + contrast(self.text_pool(own), named, same)) / 2
        return {
            "align": (cycle_loss(*frames) + cycle_loss(*reversed(frames))) / 2,
            "videos": self.video_contrast(self.video_pool(shown), self.video_pool(own), same),
            "texts": texts,
        }

    def named(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B F`` of length one of names of tasks, ``B L`` bytes and their numbers ``B``."""
        states, _ = self.reader(self.letters(ids))
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return normalised(states.gather(1, last)[:, 0])

    def _shown(self, prompt: Tensor) -> Tensor:
        return prompt if self.config.sees_prompt else torch.zeros_like(prompt)

    def _encoded(self, video: Tensor) -> Tensor:
        """Tokens of each frame alone, ``B T M C``."""
        tokens = self.encoder(rearrange(video, "b t c h w -> (b t) 1 c h w")).tokens
        return rearrange(tokens, "(b t) m c -> b t m c", t=video.shape[1])

    def logits(self, prompt: Tensor, state: Tensor) -> Tensor:
        """Logits ``B horizon A K`` of the bins of each number of the next actions, of the prompt's tokens ``B N D``
        and those of the robot's frames ``B T M C``."""
        x = self.state_prompt(self.state_tokens(state), prompt)
        logits = self.to_bins(self.decoder(self.action_queries, x)).float()
        return rearrange(logits, "b (h a) k -> b h a k", a=self.action_dim)

    def _bins(self, action: Tensor) -> Tensor:
        """The bins of actions in -1..1."""
        return ((action + 1) / 2 * self.config.bins).long().clamp(0, self.config.bins - 1)

    def prompted(self, prompt: Tensor) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.PromptedAgent`.

        Raises:
            UserError: the films have another number of frames, or frames of another size, than prompts have.
        """
        count, (height, width) = prompt.shape[1], prompt.shape[-2:]
        if count != self.prompt_frames:
            raise UserError(f"a prompt has {self.prompt_frames} frames here, and {count} were given")
        if self.size is not None and (height, width) != (self.size, self.size):
            raise UserError(
                f"this policy sees {self.size} x {self.size} pixels, and the prompt's frames have {height} x {width}"
            )
        none = torch.zeros_like(prompt[:, :1]).expand(-1, self.seen_frames, -1, -1, -1)
        return {"prompt": self.prompt_tokens(self._encoded(self._shown(prompt))), "frames": none}

    def decide(
        self, frame: Tensor, memory: dict[str, Tensor] | None, first: Tensor, *, seed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`~filmstrip.protocols.Agent`: the memory is the prompt and the last frames.

        Raises:
            UserError: no prompt was given.
        """
        if memory is None:
            raise UserError("Vid2Robot acts on a film of its task: give one (--prompt FILM)")
        alone = frame[:, None].expand(-1, self.seen_frames, -1, -1, -1)
        frames = torch.cat([memory["frames"][:, 1:], frame[:, None]], dim=1)
        frames = torch.where(first.view(-1, 1, 1, 1, 1), alone, frames)
        log_p = self.logits(memory["prompt"], self._encoded(frames))[:, 0].log_softmax(dim=-1)
        if seed is not None:
            action = self.centres[draw(log_p, uniform(seed, self.action_dim, "vid2robot.act"), Sampling())]
        elif self.config.acts == "mean":
            action = log_p.exp() @ self.centres
        else:
            action = self.centres[log_p.argmax(dim=-1)]
        return action, {"prompt": memory["prompt"], "frames": frames}


def cycle_loss(there: Tensor, back: Tensor) -> Tensor:
    """Temporal cycle consistency of films ``B P D`` by way of others ``B Q D``, the mean over frames: equations 1, 2.

    The soft nearest neighbour of a frame in the other film has soft neighbours of its own in this one: the squared
    distance of their mean place from where it began, in lengths of the film.
    """

    def near(x: Tensor, y: Tensor) -> Tensor:
        distance = x.square().sum(dim=-1)[:, :, None] + y.square().sum(dim=-1)[:, None] - 2 * x @ y.transpose(1, 2)
        return (-distance).softmax(dim=-1)

    place = torch.arange(there.shape[1], device=there.device, dtype=there.dtype) / there.shape[1]
    return (near(near(there, back) @ back, there) @ place - place).square().mean()


def tiny() -> Run:
    """``pick`` at 32 x 32 pixels, few short films; trains in seconds on two CPU cores."""
    run = pick()
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=PromptedFilms(num_train=6, num_test=2, max_steps=12),
            clip=replace(run.data.clip, num_frames=4),
        ),
        objective=replace(
            run.objective,
            encoder=replace(run.objective.encoder, channels=8, token_width=32),
            num_frames=4,
            horizon=2,
            width=32,
            num_heads=2,
            resampler_heads=2,
            depth=1,
            contrast_dim=32,
        ),
        train=Loop(length=Steps(100)),
        evals=(PromptedSuccess(episodes=1),),
    )


def pick() -> Run:
    """``pick`` at 32 x 32 pixels: 60 films of each of two arms at each of four tasks, which nothing but the prompt
    tells apart."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=PromptedFilms(),
            reads=Prompted(prompt_frames=frames, max_length=8),
            clip=Clip(num_frames=10, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=Vid2RobotConfig(
            encoder=ConvolutionsConfig(size=size),
            prompt_frames=frames,
            seen_frames=2,
            horizon=1,
            num_frames=10,
            width=64,
            num_heads=4,
            resampler_heads=4,
            num_queries=4,
            resampler_depth=1,
            depth=2,
            decoder_depth=1,
            bins=16,
            acts="mean",
            contrast_dim=64,
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Steps(1_000), clip_grad=1.0),
        evals=(PromptedSuccess(),),
    )


def robot() -> Run:
    """A mobile manipulator of ``--data FOLDER`` shown people's films: frames of 224 x 224 pixels by a base
    transformer. The paper's has eleven numbers an action: mode, gripper's place, turn and closing, base."""
    size = 224
    return Run(
        data=Data(
            reads=Prompted(),
            clip=Clip(num_frames=12, stride=1, size=size, short_side=(size, 235)),
            augment=Augment(mirror=0.0, brightness=0.1, contrast=0.2, saturation=0.2, hue=0.03),
            batch_size=2_048,
            num_workers=8,
        ),
        objective=Vid2RobotConfig(
            encoder=ImageTransformerConfig(width=768, depth=12, num_heads=12, num_frames=1, size=size, patch_size=16)
        ),
        optim=AdamW(lr=8e-5, weight_decay=0.01, schedule=Cosine(warmup=Steps(2_000), final=1e-6 / 8e-5)),
        train=Loop(length=Steps(200_000), precision="bfloat16", clip_grad=1.0),
    )
