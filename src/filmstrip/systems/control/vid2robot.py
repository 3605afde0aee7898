"""Vid2Robot: a policy that does what it is shown by a film of another body at the task.

One image encoder sees the frames of the prompt and the last frames of the robot; each becomes a few tokens by learned
queries; the robot's tokens attend to the prompt's, and queries of the action attend to both and choose a bin for each
of its numbers. Beside cloning, three contrasts bring films of both bodies together: their frames by temporal cycle
consistency, whole films of the same task, and films and the name of their task. Jain et al., "Vid2Robot: End-to-end
Video-conditioned Policy Learning with Cross-Attention Transformers", RSS 2024; cycle consistency: Dwibedi et al.,
"Temporal Cycle-Consistency Learning", CVPR 2019, equations 2 to 4.

    filmstrip train control.vid2robot:pick --out runs/shown
    filmstrip eval runs/shown --protocol prompted_success
    filmstrip rl play runs/shown --env pick/left/steel --prompt film.mp4 --out episodes

Data (:mod:`filmstrip.data.kinds.prompted`): the robot's films with actions in ``robot/TASK/*.mp4``, and films of any
other body in ``prompts/TASK/*.mp4``. The sets here are ``pick``: four goals that look alike, of which nothing but the
film of an arm that looks otherwise, in another scene, says which one is meant; and ``reach``, where it can be seen.

What is ours: the abstract alone was at hand, so that all sizes of ``robot`` but the base transformer's are ours: 16
frames of a prompt and 8 of the robot at 224 x 224 pixels, 64 queries, four layers, 256 bins, equal weights. Both
encoders share the image encoder. Names of tasks are read byte by byte by a recurrent layer (published: by a language
model). It predicts one action, from the last frames alone, for every place in a clip that has enough of them before
it. The small presets have convolutions in place of the transformer.

The paper reports, on real robots that are shown people's films, 20% more success than other policies that are
conditioned on videos, and motions that are carried over to other objects. What is measured here is in the claim
``vid2robot_prompt``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
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
from filmstrip.nn.normed_layers import SIDE, FrameEncoder
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import normalised, softmax_loss
from filmstrip.objectives.teachers import EncoderOnly, ImageTransformerConfig
from filmstrip.protocols import Batch, Features, Grid, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.rl.films import PromptedFilms
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

NARROWEST = 1e-3
"""Smallest variance of the place that cycle consistency comes back to, in lengths of the film."""


@dataclass(frozen=True, kw_only=True)
class Vid2RobotConfig(ObjectiveConfig):
    """The networks, and the weights of the contrasts."""

    encoder: ObjectiveConfig
    """Method whose encoder sees single frames, of the prompt and of the robot."""
    prompt_frames: Count = 16
    """Number of frames of a prompt."""
    seen_frames: Count = 8
    """Number of the robot's last frames that are seen together."""
    num_frames: Count = 12
    """Number of frames in a clip: the first ones are seen, and the action that led to each later one is learnt from
    the frames before it."""
    width: Count = 512
    """Channels of a token."""
    num_heads: Count = 8
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
    action_dim: CountOrZero = 0
    """Values of an action; zero until the data determine it."""
    sees_prompt: bool = True
    """Whether the prompt is seen; otherwise it is black in training and in use, for comparison."""
    contrast_dim: Count = 128
    """Dimension of the vectors that are compared."""
    align_weight: Weight = 1.0
    """Weight of the cycle consistency of frames."""
    video_weight: Weight = 1.0
    """Weight of the contrast of films of both bodies."""
    text_weight: Weight = 1.0
    """Weight of the contrast of films and names of tasks."""
    temperature: Rate = 0.1
    """Temperature of the nearest neighbours of cycle consistency."""
    spread: Weight = 0.001
    """Weight of the logarithm of the standard deviation of where it comes back to."""

    def bind(self, info: DataInfo) -> Vid2RobotConfig:
        """Take the size of actions from the data.

        Raises:
            UserError: the videos have no actions that are vectors.
        """
        if not isinstance(info, ClipInfo) or not info.action_dim:
            if self.action_dim:
                return self
            raise UserError("the robot's films have no actions that are vectors, which a policy learns from")
        return replace(self, action_dim=info.action_dim)

    def for_clip(self, clip: Clip) -> Vid2RobotConfig:
        """The encoder for frames of another size, and as many frames in a clip."""
        encoder = self.encoder.for_clip(replace(clip, num_frames=1))
        return replace(self, encoder=encoder, num_frames=clip.num_frames)

    def build(self) -> Vid2Robot:
        """Build the networks with fresh weights.

        Raises:
            UserError: the size of actions is unknown, or clips have no frame after those that are seen.
        """
        if not self.action_dim:
            raise UserError("objective.action_dim is not set: the data determine it")
        if self.num_frames <= self.seen_frames:
            raise UserError(
                f"clips have {self.num_frames} frames, and the action after {self.seen_frames} that are seen comes "
                f"with the next one: set --data.clip.num-frames to {self.seen_frames + 1} or more"
            )
        return Vid2Robot(self)


@dataclass(frozen=True, kw_only=True)
class ConvolutionsConfig(ObjectiveConfig):
    """Convolutions in place of an image transformer, which learn from few films."""

    size: Count = 32
    """Height and width of frames, pixels: 4 times a power of two."""
    channels: Count = 16
    """Channels of the first convolution, of which each next one has twice as many."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(Convolutions(self))


class Convolutions(nn.Module):
    """An encoder of single frames with a token for each of 4 x 4 places."""

    def __init__(self, config: ConvolutionsConfig) -> None:
        super().__init__()
        self.convs = FrameEncoder(config.channels, config.size)
        self.width = self.convs.width // SIDE**2
        self.places = nn.Parameter(torch.randn(SIDE**2, self.width) * 0.02)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Tokens of ``B T C H W`` video, frame by frame; layers there are none."""
        frames = as_float(video.flatten(0, 1))
        tokens = rearrange(self.convs(frames), "(b t) (c m) -> b t m c", t=video.shape[1], m=SIDE**2)
        return Features((tokens + self.places).flatten(1, 2), Grid(video.shape[1], SIDE, SIDE))


class CrossBlock(nn.Module):
    """Tokens attend to one another, then to a context, then pass a feed-forward network: ``B N D``."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.context_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.cross = Attention(width, num_heads, context_width=width)
        self.mlp = MLP(width, round(width * mlp_ratio))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``x`` is ``B N D`` and the context ``B M D``."""
        x = x + self.attention(self.norm1(x))
        x = x + self.cross(self.norm2(x), context=self.context_norm(context))
        return x + self.mlp(self.norm3(x))


class Queries(nn.Module):
    """Learned tokens that read a context through some layers: ``B M D -> B N D``."""

    def __init__(self, count: int, depth: int, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(count, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            CrossBlock(config.width, config.num_heads, config.mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, context: Tensor) -> Tensor:
        """The tokens after the last layer, normalised."""
        x = self.tokens.expand(context.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)


class FilmTokens(nn.Module):
    """A few tokens of the image encoder's many: of frames ``B T M C``, with the time of each, ``B N D``."""

    def __init__(self, frames: int, inputs: int, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, config.width)
        self.time = nn.Parameter(torch.randn(frames, 1, config.width) * 0.02)
        self.queries = Queries(config.num_queries, config.resampler_depth, config)

    def forward(self, tokens: Tensor) -> Tensor:
        """``B T M C`` to ``B N D``."""
        return self.queries((self.project(tokens) + self.time).flatten(1, 2))


class Vid2Robot(Objective):
    """The loss of cloning, and of what brings films of two bodies together; and the policy itself."""

    requires = ("video", "action", "prompt", "film", "label", "text", "text_length")

    def __init__(self, config: Vid2RobotConfig) -> None:
        super().__init__()
        self.config, self.seen_frames = config, config.seen_frames
        self.prompt_frames, self.action_dim = config.prompt_frames, config.action_dim
        self.encoder = encoder_of(config.encoder.build())
        inputs = self.encoder.width
        self.prompt_tokens = FilmTokens(config.prompt_frames, inputs, config)
        self.state_tokens = FilmTokens(self.seen_frames, inputs, config)
        self.blocks = nn.ModuleList(
            CrossBlock(config.width, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.decoder = Queries(config.action_dim, config.decoder_depth, config)
        self.to_bins = nn.Linear(config.width, config.bins)
        self.frame_head = nn.Linear(inputs, config.contrast_dim)
        self.film_head = nn.Linear(inputs, config.contrast_dim)
        self.letters = nn.Embedding(VOCABULARY.size, config.contrast_dim)
        self.reader = nn.GRU(config.contrast_dim, config.contrast_dim, batch_first=True)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted sum of the losses."""
        config, shown, size = self.config, self._shown(batch["prompt"]), self.seen_frames
        seen = batch["video"][:, :-1]
        tokens = self._encoded(torch.cat([shown, batch["film"], seen], dim=1))
        prompt, film, state = tokens.split([shown.shape[1], batch["film"].shape[1], seen.shape[1]], dim=1)
        windows = rearrange(state.unfold(1, size, 1), "b n m c t -> (b n) t m c")
        steps = seen.shape[1] - size + 1  # actions that are learnt of each clip
        shown = self.prompt_tokens(prompt)[:, None].expand(-1, steps, -1, -1).flatten(0, 1)
        logits, wanted = self.logits(shown, windows), self._bins(batch["action"][:, size:]).flatten(0, 1)
        cloned = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        losses = {"cloned": cloned} | self._contrasts(prompt.mean(dim=2), film.mean(dim=2), batch)
        weights = {"align": config.align_weight, "videos": config.video_weight, "texts": config.text_weight}
        total = sum((weights[name] * losses[name] for name in weights), cloned)
        right = (logits.argmax(dim=-1) == wanted).float().mean()
        return Loss(total, {name: value.detach() for name, value in losses.items()} | {"accuracy": right})

    def _contrasts(self, prompt: Tensor, film: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Those of the mean tokens of frames, ``B P C`` of prompts and of the robot's films."""
        shown, own = (normalised(self.frame_head(x)) for x in (prompt, film))
        settings = (self.config.temperature, self.config.spread)
        align = (cycle_loss(shown, own, *settings) + cycle_loss(own, shown, *settings)) / 2
        shown, own = (normalised(self.film_head(x.mean(dim=1))) for x in (prompt, film))
        named = self.named(batch["text"], batch["text_length"])
        same, scale = batch["label"][:, None] == batch["label"], self.log_scale.exp()
        texts = (softmax_loss(shown @ named.T * scale, same) + softmax_loss(own @ named.T * scale, same)) / 2
        return {"align": align, "videos": softmax_loss(shown @ own.T * scale, same), "texts": texts}

    def named(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of length one of names of tasks, ``B L`` bytes and their numbers ``B``."""
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
        """Logits ``B A K`` of the bins of each number of the action, of the prompt's tokens ``B N D`` and those of
        the robot's frames ``B T M C``."""
        x = self.state_tokens(state)
        for block in self.blocks:
            x = block(x, prompt)
        return self.to_bins(self.decoder(x)).float()

    def _bins(self, action: Tensor) -> Tensor:
        """The bins of actions in -1..1."""
        return ((action + 1) / 2 * self.config.bins).long().clamp(0, self.config.bins - 1)

    def prompted(self, prompt: Tensor) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.PromptedAgent`."""
        if prompt.shape[1] != self.prompt_frames:
            raise UserError(f"a prompt has {self.prompt_frames} frames, and {prompt.shape[1]} were given")
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
        log_p = self.logits(memory["prompt"], self._encoded(frames)).log_softmax(dim=-1)
        if seed is None:
            chosen = log_p.argmax(dim=-1)
        else:
            chosen = draw(log_p, uniform(seed, self.action_dim, "vid2robot.act"), Sampling())
        action = (chosen + 0.5) / self.config.bins * 2 - 1
        return action, {"prompt": memory["prompt"], "frames": frames}


def cycle_loss(there: Tensor, back: Tensor, temperature: float, spread: float) -> Tensor:
    """Cycle-back regression of films ``B P D`` by way of others ``B Q D``, the mean over frames.

    The soft nearest neighbour of a frame in the other film has its own soft neighbours in this one, whose places have
    a mean and a variance: the squared distance from where it began over the variance, plus ``spread`` times the
    logarithm of the standard deviation. Places are in lengths of the film.
    """

    def near(x: Tensor, y: Tensor) -> Tensor:
        distance = x.square().sum(dim=-1)[:, :, None] + y.square().sum(dim=-1)[:, None] - 2 * x @ y.transpose(1, 2)
        return (-distance / temperature).softmax(dim=-1)

    place = torch.arange(there.shape[1], device=there.device, dtype=there.dtype) / there.shape[1]
    weights = near(near(there, back) @ back, there)
    mean = weights @ place
    variance = (weights * (place - mean[..., None]).square()).sum(dim=-1).clamp(min=NARROWEST)
    return ((place - mean).square() / variance + spread * 0.5 * variance.log()).mean()


def tiny() -> Run:
    """``pick`` at 32 x 32 pixels, few short films; trains in seconds on two CPU cores."""
    run = pick()
    films = PromptedFilms(num_train=6, num_test=2, max_steps=12)
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=films,
            reads=Prompted(prompt_frames=4, max_length=8),
            clip=replace(run.data.clip, num_frames=4),
            batch_size=16,
        ),
        objective=replace(
            run.objective,
            encoder=replace(run.objective.encoder, channels=8),
            prompt_frames=4,
            seen_frames=2,
            num_frames=4,
            width=32,
            num_heads=2,
            num_queries=4,
            resampler_depth=1,
            depth=1,
            decoder_depth=1,
            bins=16,
            contrast_dim=32,
        ),
        train=Loop(length=Steps(100)),
        evals=(PromptedSuccess(episodes=1),),
    )


def pick() -> Run:
    """``pick`` at 32 x 32 pixels: 50 films of each of two arms at each of four tasks, which nothing but the prompt
    tells apart."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=PromptedFilms(max_steps=40),
            reads=Prompted(prompt_frames=frames, max_length=8),
            clip=Clip(num_frames=11, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=Vid2RobotConfig(
            encoder=ConvolutionsConfig(size=size, channels=24),
            prompt_frames=frames,
            seen_frames=3,
            num_frames=11,
            width=64,
            num_heads=4,
            num_queries=8,
            resampler_depth=1,
            depth=2,
            decoder_depth=1,
            bins=16,
            contrast_dim=64,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.01, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Steps(2_000), clip_grad=1.0),
        evals=(PromptedSuccess(),),
    )


def robot() -> Run:
    """A robot of ``--data FOLDER`` shown people's films: frames of 224 x 224 pixels by a base transformer."""
    size = 224
    return Run(
        data=Data(
            reads=Prompted(),
            clip=Clip(num_frames=12, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=64,
            num_workers=8,
        ),
        objective=Vid2RobotConfig(
            encoder=ImageTransformerConfig(width=768, depth=12, num_heads=12, num_frames=1, size=size, patch_size=16),
            width=768,
            num_heads=12,
            action_dim=7,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.01, schedule=Cosine(warmup=0.05)),
        train=Loop(length=Steps(100_000), precision="bfloat16", clip_grad=1.0),
    )
