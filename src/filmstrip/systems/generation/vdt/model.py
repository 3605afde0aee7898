"""VDT's objective: what is given in training and in sampling, and the published pipelines that it begins with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import torch
from einops import reduce
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, NotEmpty, Weight
from filmstrip.errors import UserError
from filmstrip.models.video_dit import METRIC_FPS, VideoDiT, VideoDiTArchitecture
from filmstrip.models.video_dit_layouts import (
    architecture_of,
    config_of,
    from_diffusers_dit,
    outputs_beside,
    pipeline_of,
    text_sees_padding,
    to_diffusers_dit,
    to_peft_dit,
)
from filmstrip.objectives.diffusion import process_of
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, denoise, solver_of
from filmstrip.objectives.noised_latents import NoisedLatents, NoisedLatentsConfig
from filmstrip.objectives.video_autoencoder import VideoAutoencoderConfig
from filmstrip.protocols import Batch, Condition, Grid, Loss, Pipeline, Rules, as_float
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.weights.keymap import Weights, check_names, renamed

Task = Literal["generate", "predict", "backwards", "interpolate", "animate", "frames", "complete"]
"""Given frames: none; the first ones; the last ones; every so many; one anywhere; each with a probability of a
fifth; or all but a rectangle of half a frame, from one of the first four frames to one of the last four."""
PUBLISHED: tuple[tuple[Task, float], ...] = (
    *((task, 0.8 / 6) for task in ("generate", "predict", "backwards", "interpolate", "animate", "frames")),
    ("complete", 0.2),
)
_GIVEN_FRAMES = 0.2
_ENDS = 4
_ASPECT = 0.3
_GREY = 0.5
"""Pixels that stand where nothing is known, in 0..1."""


def draw_given(seeds: Tensor, grid: Grid, config: VDTConfig) -> Tensor:
    """Which latents of each of ``B`` clips are given in training, ``B t h w`` bool."""
    t = grid.t
    at = torch.arange(t, device=seeds.device)
    one = (uniform(seeds, 1, "vdt.one") * t).long()
    frames: dict[Task, Tensor] = {
        "generate": at < 0,
        "predict": at < config.given_frames,
        "backwards": at >= t - config.given_frames,
        "interpolate": at % config.interval == 0,
        "animate": at == one,
        "frames": uniform(seeds, t, "vdt.frames") < _GIVEN_FRAMES,
        "complete": at < 0,
    }
    names, weights = zip(*config.tasks)
    ends = torch.tensor(weights, dtype=torch.float64).cumsum(0) / sum(weights)
    task = torch.searchsorted(ends[:-1].to(seeds.device, torch.float32), uniform(seeds, 1, "vdt.task"), right=True)
    given = torch.zeros(len(seeds), *grid, dtype=torch.bool, device=seeds.device)
    for number, name in enumerate(names):
        chosen = (task == number)[:, :, None, None]
        shown = (
            ~_rectangles(seeds, grid) if name == "complete" else frames[name].expand(len(seeds), t)[..., None, None]
        )
        given = torch.where(chosen, shown, given)
    return given


def _rectangles(seeds: Tensor, grid: Grid) -> Tensor:
    """A rectangle of half a frame in the middle frames of each clip, ``B t h w`` bool."""
    draws = uniform(seeds, 5, "vdt.rectangle")
    first, last = (draws[:, :2] * min(_ENDS, (grid.t + 1) // 2)).long().unbind(1)
    aspect = torch.exp((1 - 2 * draws[:, 2]) * math.log(_ASPECT))
    area = grid.h * grid.w / 2
    sides, inside = ((area * aspect).sqrt(), (area / aspect).sqrt()), []
    for side, place, size in zip(sides, (draws[:, 3], draws[:, 4]), grid[1:]):
        length = side.round().long().clamp(1, size)
        start = (place * (size - length + 1)).long()
        at = torch.arange(size, device=seeds.device)
        inside.append((at >= start[:, None]) & (at < (start + length)[:, None]))
    at = torch.arange(grid.t, device=seeds.device)
    moment = (at >= first[:, None]) & (at < grid.t - last[:, None])
    return moment[:, :, None, None] & inside[0][:, None, :, None] & inside[1][:, None, None]


@dataclass(frozen=True, kw_only=True)
class GuidedSampling(DiffusionSampling):
    """Steps from noise, and how closely samples follow a text."""

    guidance: AnyNumber = 1.0
    """Scale of classifier-free guidance by the text; 1 is the conditional prediction alone."""


@dataclass(frozen=True, kw_only=True)
class VDTConfig(NoisedLatentsConfig):
    """The transformer, and what is given in training."""

    has_pipeline: ClassVar[bool] = True

    transformer: VideoDiTArchitecture = field(default_factory=VideoDiTArchitecture)
    """Network of noised latents."""
    tasks: Annotated[tuple[tuple[Task, Weight], ...], NotEmpty] = PUBLISHED
    """Tasks of training, by what is given, with relative frequencies."""
    given_frames: Count = 8
    """Number of first or last frames that are given where these are (in latents, as is the interval)."""
    interval: Count = 4
    """Number of frames from one that is given to the next, where they are interpolated."""
    sampling: GuidedSampling = field(default_factory=GuidedSampling, metadata=FREE)
    """Settings of sampling, unless others are given."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """What samples can follow."""
        return ("text",) if self.transformer.context_width else ()

    def of_pipeline(self, network: Mapping[str, Any], scheduler: Mapping[str, Any] | None, source: str) -> Self:
        """See :meth:`ObjectiveConfig.of_pipeline`."""
        own = replace(
            self, transformer=architecture_of(network, source), text_sees_padding=text_sees_padding(network)
        )
        if scheduler is None:
            return own
        spacing = scheduler.get("timestep_spacing", own.sampling.spacing)
        known = spacing if spacing in ("leading", "trailing") else own.sampling.spacing
        solver = solver_of(scheduler) or own.sampling.solver
        sampling = replace(own.sampling, spacing=known, solver=solver)
        return replace(own, diffusion=process_of(scheduler, source), sampling=sampling)

    def with_tokenizer_of_hub(self, config: Mapping[str, Any], source: str) -> Self:
        """See :meth:`LatentConfig.with_tokenizer_of_hub`: its latents' distances are those of metric positions."""
        own = super().with_tokenizer_of_hub(config, source)
        if own.transformer.positions != "metric" or not isinstance(own.tokenizer, VideoAutoencoderConfig):
            return own
        time, height, width = own.tokenizer.patch_size
        steps = (time / METRIC_FPS, float(height), float(width))
        return replace(own, transformer=replace(own.transformer, latent_steps=steps))

    def build(self) -> VDT:
        """Build everything with fresh weights.

        Raises:
            UserError: sizes do not fit, frames are to be given that the tokenizer does not code alone, or texts are
                to be read and nothing is known of them.
        """
        return VDT(self)


class _Texts(NamedTuple):
    """What the transformer reads of texts."""

    vectors: Tensor
    """Vectors ``B L D``."""
    valid: Tensor
    """Mask of those that are no padding, ``B L`` bool."""


class _Given(NamedTuple):
    """The part of samples that is given."""

    video: Tensor
    """Pixels ``B T 3 H W`` in 0..1, grey where they are not known."""
    known: Tensor
    """Mask of the known pixels, ``B T H W`` bool."""
    latents: Tensor
    """Latents of the video, ``B t D h w``."""
    places: Tensor
    """Mask of the latents that are given, ``B t 1 h w`` bool."""


class VDT(NoisedLatents):
    """Predicts the noise of what is not given of a clip's latents; samples likewise."""

    lora_part = "transformer"

    def __init__(self, config: VDTConfig) -> None:
        width = config.transformer.context_width
        super().__init__(config, text_width=width or None)
        self.config = config
        if not all(weight > 0 for _, weight in config.tasks):
            raise UserError("objective.tasks: leave out tasks with a frequency of zero")
        self._check_tasks()
        self.grid = self.tokenizer.grid_of(config.num_frames, config.size, config.size)
        self.transformer = VideoDiT(config.transformer, channels=self.latent_dim, size=self.grid)
        self.requires = ("video", "seed", *(("text", "text_length") if width else ()))

    def _check_tasks(self) -> None:
        """Refuse to give what the tokenizer does not code alone.

        Raises:
            UserError: that is asked for.
        """
        tasks = {task for task, _ in self.config.tasks}
        if self.tokenizer.frames_apart or tasks == {"generate"}:
            return
        name = type(self.config.tokenizer).__name__
        if not self.tokenizer.first_alone:
            raise UserError(
                f"{name} codes frames together, so that none could be given alone: give a tokenizer of single frames "
                "(tokenizers.vae_kl), or objective.tasks generate 1"
            )
        if other := sorted(tasks - {"generate", "predict"}):
            raise UserError(
                f"{name} codes frames after those before them, so that only first ones can be given: leave "
                f"{', '.join(other)} out of objective.tasks (generate 1 predict 1)"
            )

    def text_projection(self, given: int, width: int) -> nn.Module:
        """Nothing: the transformer has its own.

        Raises:
            UserError: it reads vectors of another dimension.
        """
        if given != width:
            raise UserError(
                f"texts are vectors of {given} numbers and the transformer reads {width}: set "
                "objective.transformer.context-width to the former"
            )
        return nn.Identity()

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "vdt"

    # Learning

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Squared error of what is predicted of the latents that are not given."""
        latents, seeds = self.latents(batch["video"]), batch["seed"]
        given = draw_given(seeds, Grid(latents.shape[1], *latents.shape[3:]), self.config)[:, :, None]
        texts = None
        if self.text is not None:
            absent = self.config.dropout.draw(seeds, self.order, "vdt.dropout")["text"]
            told = self.read(batch["text"], batch["text_length"])
            lengths = torch.where(absent, self.empty_length, batch["text_length"])
            texts = self._read(torch.where(absent[:, None, None], self.read_empty(), told), lengths)
        process = self.diffusion.of_size(latents[0, :, 0].numel())
        losses, _ = process.losses(lambda x, time: self.predict(x, time, texts), latents, seeds, "vdt", given=given)
        return Loss(losses.mean(), {"given": given.float().mean()})

    def predict(self, x: Tensor, time: Tensor, texts: _Texts | None) -> Tensor:
        """The network's prediction ``B T D h w`` of latents ``B T D h w``, without variances."""
        return self.transformer(x, time, *(texts or ()))[:, :, : self.latent_dim]

    def _read(self, vectors: Tensor, lengths: Tensor) -> _Texts:
        """What is read of texts ``B L C`` of these lengths."""
        valid = torch.arange(vectors.shape[1], device=vectors.device) < lengths[:, None]
        return _Texts(self.transformer.read(vectors), valid)

    # Sampling

    @torch.no_grad()
    def sample(self, condition: Condition, *, seed: int, sampling: DiffusionSampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1: what is given stays as it is, whichever part of the samples that is.

        Raises:
            UserError: the condition does not fit the model.
        """
        sampling = self.config.sampling if sampling is None else sampling
        scale = sampling.guidance if isinstance(sampling, GuidedSampling) else 1.0
        self._check(condition, sampling, scale)
        device = self.latent_scale.device
        seeds = seed + torch.arange(condition.batch_size, device=device)
        grid = self.tokenizer.grid_of(condition.num_frames, self.size, self.size)
        noise = self.noise(seeds, grid.t, grid[1:])
        given = self._given(condition)
        texts, nothing = self._texts(condition)
        process = self.diffusion.of_size(noise[0, :, 0].numel())

        def predict(x: Tensor, time: Tensor) -> Tensor:
            if given is not None:
                x = torch.where(given.places, given.latents, x)
            if scale == 1 or texts is None or nothing is None:
                return self.predict(x, time, texts).float()
            twice = _Texts(*(torch.cat(pair) for pair in zip(texts, nothing)))
            both = self.predict(x.repeat(2, 1, 1, 1, 1), time.repeat(2), twice).float()
            told, untold = both.chunk(2)
            return untold + scale * (told - untold)

        latents = denoise(process, predict, noise, sampling, seeds=seeds)
        if given is None:
            return self.pixels(latents)
        made = self.pixels(torch.where(given.places, given.latents, latents))
        return torch.where(given.known[:, :, None], given.video, made)

    def _check(self, condition: Condition, sampling: object, guidance: float) -> None:
        """Refuse what the model cannot make."""
        if not isinstance(sampling, DiffusionSampling):
            raise UserError(f"samples are drawn from noise (DiffusionSampling), not by {type(sampling).__name__}")
        if condition.label is not None or condition.action is not None:
            raise UserError("this model knows no classes and no actions: leave them out of the condition")
        if condition.text and self.text is None:
            raise UserError("this model was trained without texts: leave them out of the condition")
        if guidance != 1 and not condition.text:
            raise UserError("guidance strengthens a text: give one (--text), or set it to 1")
        frames, each = condition.num_frames, self.tokenizer.patch_size[0]
        first = int(self.tokenizer.first_alone)
        if self.transformer.rotary is None and frames != self.num_frames:
            raise UserError(f"this model makes clips of {self.num_frames} frames, no other number: got {frames}")
        if frames < first or (frames - first) % each:
            after = " after the first one" if first else ""
            raise UserError(f"this model makes {each} frames at a time{after}, and {frames} were asked for")
        if condition.video is not None:
            if not self.tokenizer.frames_apart and not first:
                raise UserError("this model's tokenizer codes frames together: it makes whole clips, from no frames")
            if first and condition.known is not None:
                raise UserError(
                    "this model's tokenizer codes frames after those before them, so that first ones can be given: "
                    "leave out --given (--context-frames)"
                )
            if first and (len(shown := condition.video[0]) - first) % each:
                raise UserError(
                    f"this model is given its first frame, or {each} or a multiple more: {len(shown)} were given"
                )
            size = tuple(condition.video.shape[3:])
            if size != (self.size, self.size):
                raise UserError(f"this model makes frames of {self.size} x {self.size} pixels, and was given {size}")

    def _given(self, condition: Condition) -> _Given | None:
        """What is given of the samples; none if nothing is."""
        if condition.video is None:
            return None
        video, frames = as_float(condition.video), condition.num_frames
        known = condition.known
        if known is None:
            missing = video.new_full((len(video), frames - video.shape[1], *video.shape[2:]), _GREY)
            known = (torch.arange(frames, device=video.device) < video.shape[1])[None, :, None, None]
            video = torch.cat([video, missing], dim=1)
        known = known.expand(len(video), frames, *video.shape[3:])
        video = torch.where(known[:, :, None], video, _GREY)
        return _Given(video, known, self.latents(video), self.given_places(known))

    def given_places(self, known: Tensor) -> Tensor:
        """See :class:`~filmstrip.protocols.Completes`: those places of which all pixels are known."""
        p, q, r = self.tokenizer.patch_size
        if self.tokenizer.first_alone:  # as many of it as of the others
            known = torch.cat([known[:, :1].expand(-1, p, -1, -1), known[:, 1:]], dim=1)
        whole = reduce(known.float(), "b (t p) (h q) (w r) -> b t h w", "min", p=p, q=q, r=r)
        return whole[:, :, None] > 0

    def _texts(self, condition: Condition) -> tuple[_Texts | None, _Texts | None]:
        """What the transformer attends to of the samples' texts, by default the empty one, and of the latter."""
        if self.text is None:
            return None, None
        count = condition.batch_size
        empty = self.read_empty().expand(count, -1, -1)
        nothing = self._read(empty, torch.full((count,), self.empty_length, device=empty.device))
        if not condition.text:
            return nothing, nothing
        told = condition.text[-1]
        return self._read(self.read(told["text"], told["text_length"]), told["text_length"]), nothing

    # Weights

    def from_published(self, theirs: Mapping[str, Any]) -> Weights:
        """The transformer from its authors' file (averaged weights if there are any), or from one of ``diffusers``.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        theirs = theirs.get("ema", theirs.get("model", theirs))
        own = self.transformer.state_dict()
        if "y_embedder.embedding_table.weight" in theirs:
            weights = _from_authors(theirs, own)
        else:
            weights = from_diffusers_dit(theirs, own, self.config.transformer)
        return {f"transformer.{name}": tensor for name, tensor in weights.items()}

    def to_diffusers(self) -> tuple[dict[str, Any], Weights]:
        """See :class:`~filmstrip.protocols.InDiffusers`: the transformer."""
        config = config_of(self.config.transformer, channels=self.latent_dim, size=self.grid)
        return config, to_diffusers_dit(self.transformer.state_dict(), self.config.transformer)

    def pipeline(self) -> Pipeline:
        """See :class:`~filmstrip.protocols.InPipeline`."""
        config_of(self.config.transformer, channels=self.latent_dim, size=self.grid)
        return pipeline_of(self.config.transformer)

    def beside(self, theirs: Any) -> tuple[Tensor, Tensor]:
        """See :class:`~filmstrip.protocols.InPipeline`."""
        return outputs_beside(theirs, self.transformer)

    def to_peft(self) -> tuple[dict[str, Any], Weights]:
        """See :class:`~filmstrip.protocols.InPeft`."""
        return to_peft_dit(self.transformer)

    def depth_of(self, name: str) -> int:
        """The transformer's layers; texts come first."""
        part, _, rest = name.partition(".")
        return self.transformer.depth_of(rest) if part == "transformer" else 0


_AUTHORS: Rules = (
    (r"^embed\.", "x_embedder.proj."),
    (r"^time\.fc1\.", "t_embedder.mlp.0."),
    (r"^time\.fc2\.", "t_embedder.mlp.2."),
    (r"modulation\.linear\.", "adaLN_modulation.1."),
    (r"^out_adaLN", "final_layer.adaLN"),
    (r"^out\.", "final_layer.linear."),
    (r"\.time_norm\.", ".temporal_norm1."),
    (r"\.time_fc\.", ".temporal_fc."),
    (r"\.(time_)?attention\.out\.", r".\1attention.proj."),
    (r"\.time_attention\.", ".temporal_attn."),
    (r"\.attention\.", ".attn."),
)
_FIXED = ("pos_embed", "time_embed", r"y_embedder\.embedding_table\.weight")


def _from_authors(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Weights:
    """Our names for the authors' weights; the embedding of their one class joins the time's bias."""
    names = {name: renamed(name, _AUTHORS) for name in wanted}
    check_names("this is no VDT of this size: it", theirs, names.values(), spare=_FIXED)
    ours = {name: theirs[key] for name, key in names.items()}
    kernel = ours["embed.weight"]
    ours["embed.weight"] = kernel.movedim(1, -1).flatten(1)
    ours["time.fc2.bias"] = ours["time.fc2.bias"] + theirs["y_embedder.embedding_table.weight"][0]
    return ours
