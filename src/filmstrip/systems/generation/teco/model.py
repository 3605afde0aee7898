"""TECO's networks, what a frame is to them, the loss and the samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions, Known
from filmstrip.models.frame_history import FrameHistory, FrameHistoryArchitecture
from filmstrip.models.masked_transformer import MaskedTransformer, MaskedTransformerArchitecture
from filmstrip.nn.masked_sampling import MaskedSampling, Schedule, draft_log_probs, draw_masks, fill
from filmstrip.nn.patches import take
from filmstrip.nn.quantise import Quantised, VectorQuantiser
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Batch, Condition, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.systems.generation.teco.frames import CodeFrames, PixelFrames, ResidualDecoder, ResidualEncoder
from filmstrip.systems.generation.teco.weights import from_teco
from filmstrip.weights.keymap import Weights

_RENDERED = 16  # frames decoded at once


class TECO(Objective):
    """The four networks, trained together; a generator that continues video."""

    def __init__(self, config: TECOConfig) -> None:
        super().__init__()
        space, d = config.build_space(), config.latent_dim
        size = config.places_of_codes(space.places)
        action = "action" in config.conditions
        known = Known(num_actions=config.num_actions if action else 0, action_dim=config.action_dim if action else 0)
        conditions = FrameConditions(known, label_width=0, action_width=config.action_width)
        # Made in this order, listed in the next: seeds give the same weights as ever.
        encoder = ResidualEncoder(2 * space.channels, d, widths=config.encoder_widths, blocks=config.encoder_blocks)
        quantiser = VectorQuantiser(config.codebook_size, config.code_dim, unit=True)
        history = FrameHistory(
            FrameHistoryArchitecture(
                input_dim=d,
                given_dim=conditions.width,
                output_dim=d,
                size=size,
                stride=config.stride,
                num_frames=config.num_frames - 1,
                width=config.width,
                depth=config.depth,
                num_heads=config.num_heads,
            )
        )
        prior = MaskedTransformer(
            MaskedTransformerArchitecture(
                codebook_size=config.codebook_size,
                grid=(1, *size),
                width=config.prior_width,
                depth=config.prior_depth,
                num_heads=config.prior_num_heads,
                code_width=config.prior_code_width,
                condition_width=d,
                form="teco",
            )
        )
        decoder = ResidualDecoder(2 * d, space.output_dim, widths=config.decoder_widths, blocks=config.decoder_blocks)
        self.space = space
        self.before_first = nn.Parameter(torch.randn(space.channels, *space.places) * 0.02)
        self.encoder = encoder
        self.to_code = nn.Linear(d, quantiser.input_dim, bias=False)
        self.quantiser = quantiser
        self.from_code = nn.Linear(quantiser.latent_dim, d, bias=False)
        self.conditions = conditions
        self.history = history
        self.prior = prior
        self.decoder = decoder
        self.drop_loss, self.condition_drop = config.drop_loss, config.condition_drop
        self.schedule, self.sampling = config.schedule, config.sampling
        self.requires = ("seed", "action") if known.has_action else ("seed",)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the tokenizer's, from the flat ``params`` of a released checkpoint.

        Raises:
            UserError: an array is missing or has no place here.
        """
        return from_teco(theirs, self)

    @property
    def tokenizer(self) -> Objective | None:
        """The frozen tokenizer of the frames; none on pixels."""
        return self.space.tokenizer

    def code(self, targets: Tensor) -> tuple[Tensor, Quantised]:
        """Latents ``B T D h w`` of frames, the first not quantised, and how all of them passed the codebook."""
        frames = self.space.embed(targets)
        first = self.before_first.to(frames.dtype).expand(len(frames), 1, -1, -1, -1)
        before = torch.cat([first, frames[:, :-1]], dim=1)
        raw = self.encoder(torch.cat([before, frames], dim=2).flatten(0, 1)).unflatten(0, frames.shape[:2])
        passage = self.quantiser(self.to_code(rearrange(raw, "b t d h w -> b t h w d")))
        coded = rearrange(self.from_code(passage.latents), "b t h w d -> b t d h w").to(raw.dtype)
        return torch.cat([raw[:, :1], coded[:, 1:]], dim=1), passage

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats of frame and codes, of a random few frames of each clip, and the codebook's loss."""
        targets, seed = self.space.targets(batch), batch["seed"]
        b, t = targets.shape[:2]
        z, passage = self.code(targets)
        hidden = uniform(seed, 1, "teco.condition_drop")[:, 0] < self.condition_drop
        given = self.conditions(b, t, label=None, action=batch.get("action"), unknown=hidden)
        summary = self.history(z[:, :-1], None if given is None else given[:, 1:])
        chosen = self._choose_frames(seed, t - 1)
        pick = lambda x: take(x.flatten(2), chosen).unflatten(2, x.shape[2:])  # noqa: E731
        h = self.history.spread(pick(summary)).flatten(0, 1)
        z, ids, targets = (pick(x).flatten(0, 1) for x in (z[:, 1:], passage.ids[:, 1:], targets[:, 1:]))

        masks = draw_masks(seed, chosen.shape[1], ids[0].numel(), schedule=self.schedule, use="teco.masks")
        prior = self._prior_nats(ids.flatten(1), masks.flatten(0, 1), h)
        frame = self.space.nats(self.decoder(torch.cat([h, z], dim=1)), targets).mean()
        metrics = {"frame_nats": frame.detach(), "prior_nats": prior.detach(), **passage.metrics}
        return Loss(frame + prior + 0.5 * passage.loss, metrics)  # half of the squared distances, as published

    def _choose_frames(self, seed: Tensor, frames: int) -> Tensor:
        """Which frames the loss is of, ``B n`` int64, in the order of time."""
        count = max(1, int((1 - self.drop_loss) * frames + 1e-6))
        return uniform(seed, frames, "teco.frames").argsort(dim=1)[:, :count].sort(dim=1).values

    def _prior_nats(self, ids: Tensor, masks: Tensor, h: Tensor) -> Tensor:
        """Mean nats of a masked code, times the codes of a frame."""
        logits = self.prior(ids.masked_fill(masks, self.prior.mask_id), rearrange(h, "n d h w -> n (h w) d"))
        each = F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none").view_as(masks)
        return (each * masks).sum() / masks.sum() * ids.shape[1]

    @property
    def num_frames(self) -> int:
        """Number of frames of the clips that it was trained on."""
        return self.space.num_frames

    def frame_codes(self, video: Tensor) -> Tensor:
        """What the networks take frames for, ids ``B T h w`` or pixels; see
        :class:`~filmstrip.protocols.FrameScorer`."""
        return self.space.targets({"video": video.flatten(0, 1)[:, None]}).unflatten(0, video.shape[:2])[:, :, 0]

    @torch.no_grad()
    def frame_log_probs(self, codes: Tensor, batch: Batch) -> Tensor:
        """See :class:`~filmstrip.protocols.FrameScorer`: a bound, ``B T 1 1``, for the latents are those of the
        encoder; zero of the first frame, which is given.

        Raises:
            UserError: the model has actions as conditions.
        """
        if "action" in self.requires:
            raise UserError("a likelihood of single frames has no actions, and this model does: train it without")
        if codes.shape[1] < 2:
            return torch.zeros(len(codes), codes.shape[1], 1, 1, device=codes.device)
        z, passage = self.code(codes)
        later = codes.shape[1] - 1
        h = self.history.spread(self.history(z[:, :-1], None)).flatten(0, 1)
        ids, frames = passage.ids[:, 1:].flatten(0, 1).flatten(1), codes[:, 1:].flatten(0, 1)
        context = rearrange(h, "n d h w -> n (h w) d")
        number = torch.arange(later, device=ids.device)
        prior = draft_log_probs(
            lambda shown: self.prior(shown, context),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            mask_id=self.prior.mask_id,
            seeds=(batch["seed"][:, None] + (number << 40)).flatten(),
            parts=self.sampling.steps,
            use="teco.parts",
        ).sum(dim=1)
        each = prior - self.space.nats(self.decoder(torch.cat([h, z[:, 1:].flatten(0, 1)], dim=1)), frames)
        return F.pad(each.view(-1, later), (1, 0))[..., None, None]

    def sample(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1: the frames that were given, continued.

        Raises:
            UserError: no frames were given, or the condition does not fit the model.
        """
        frames = list(self.continuation(condition, seed=seed, sampling=sampling))
        made = [
            self.space.render(torch.stack(frames[i : i + _RENDERED], 1)) for i in range(0, len(frames), _RENDERED)
        ]
        return torch.cat([as_float(condition.video), *made], dim=1)

    def stream(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """The frames after those given, ``B 1 C H W`` each, as they are ready: the same as :meth:`sample`'s."""
        for frame in self.continuation(condition, seed=seed, sampling=sampling):
            yield self.space.render(frame[:, None])

    @torch.no_grad()
    def continuation(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """The frames after those given, one by one and not rendered: ids ``B h w`` of a tokenizer, or pixels."""
        sampling = self.sampling.adapted(sampling)
        self._check(condition, sampling)
        b, t = condition.batch_size, condition.num_frames
        given = self.conditions(b, t, label=None, action=condition.action)
        z, _ = self.code(self.space.targets({"video": condition.video}))
        seen = z.shape[1]
        seeds = seed + torch.arange(b, device=z.device)
        cache = self.history.new_cache(b, t - 1) if t > seen else None
        for now in range(seen, t):
            led_by = None if given is None else given[:, now - z.shape[1] + 1 : now + 1]
            summary = self.history(z, led_by, cache=cache)[:, -1:]
            h = self.history.spread(summary)[:, 0]
            ids = self._draw(h, seeds, sampling, now)
            z = rearrange(self.from_code(self.quantiser.decode(ids)), "b h w d -> b 1 d h w").to(h.dtype)
            yield self.space.likeliest(self.decoder(torch.cat([h, z[:, 0]], dim=1)))

    def _draw(self, h: Tensor, seeds: Tensor, sampling: MaskedSampling, now: int) -> Tensor:
        """The codes of frame ``now``, ``B h w``, from its summary ``B D h w``."""
        context = rearrange(h, "b d h w -> b (h w) d")
        ids = torch.full(context.shape[:2], self.prior.mask_id, device=h.device)
        ids = fill(
            lambda partly: self.prior(partly, context),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            mask_id=self.prior.mask_id,
            seeds=seeds,
            sampling=sampling,
            use="teco.codes",
            index=now,
        )
        return ids.unflatten(1, h.shape[2:])

    def _check(self, condition: Condition, sampling: MaskedSampling) -> None:
        most, video = self.space.num_frames, condition.video
        if video is None or not 0 < video.shape[1] <= condition.num_frames <= most:
            shown = "none" if video is None else f"{video.shape[1]}"
            raise UserError(
                f"TECO continues up to {most} frames of video from one or more that are given: got {shown} and "
                f"{condition.num_frames} frames to make in all"
            )
        if sampling.guidance != 1:
            raise UserError(f"TECO samples without guidance: it is 1, not {sampling.guidance:g}")
        self.conditions.check(condition, optional=self.condition_drop > 0)


@dataclass(frozen=True, kw_only=True)
class TECOConfig(LatentConfig):
    """The four networks. Without a tokenizer, frames are pixels."""

    tokenizer: ObjectiveConfig | None = None
    num_frames: Count = 300
    label_smoothing: ShareBelowOne = 0.0
    """Label smoothing of a frame's codes in the loss, if frames are codes."""
    pixel_sigma: Rate = 0.1
    """Standard deviation of a pixel, if frames are pixels: weights their error against that of the codes."""
    encoder_widths: Annotated[tuple[Count, ...], NotEmpty] = (256, 512)
    """Numbers of channels at each resolution of a frame, from the full one; each level halves it."""
    encoder_blocks: Count = 2
    decoder_widths: Annotated[tuple[Count, ...], NotEmpty] = (256, 512)
    decoder_blocks: Count = 4
    codebook_size: Count = 1024
    code_dim: Count = 32
    """Channels of a code."""
    latent_dim: Count = 64
    """Channels that codes are projected to."""
    stride: Count = 8
    """Number of positions along each axis of a frame's codes that share a token of the temporal transformer."""
    width: Count = 1024
    depth: Count = 8
    num_heads: Count = 16
    prior_width: Count = 512
    prior_depth: Count = 8
    prior_num_heads: Count = 8
    prior_code_width: Count = 256
    drop_loss: ShareBelowOne = 0.0
    """Fraction of the frames that prior and decoder omit in each training step."""
    conditions: tuple[Literal["action"], ...] = ()
    """Conditions of samples: actions that lead from frame to frame."""
    condition_drop: Share = 0.0
    """Fraction of the training clips whose actions are dropped, so that the model also samples without actions."""
    num_actions: CountOrZero = 0
    action_dim: CountOrZero = 0
    """Discrete actions, or values of a continuous one: told by the data."""
    action_width: Count = 16
    schedule: Schedule = "cosine"
    sampling: MaskedSampling = field(default_factory=lambda: MaskedSampling(method="draft_and_revise"), metadata=FREE)

    def bind(self, info: DataInfo) -> TECOConfig:
        """Take over what the actions of the data are.

        Raises:
            UserError: the model is to see actions and the data have none.
        """
        if "action" not in self.conditions:
            return self
        if not isinstance(info, ClipInfo) or not (info.num_actions or info.action_dim):
            raise UserError("actions as condition need data with actions: leave them out of objective.conditions")
        return replace(self, num_actions=info.num_actions, action_dim=info.action_dim)

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer of the frames, where it is a trained one."""
        return {} if self.tokenizer is None else {"space.tokenizer": FrozenPart("objective.tokenizer_run")}

    def build(self) -> TECO:
        """Build the networks with fresh weights.

        Raises:
            UserError: the tokenizer codes several frames together, or sizes do not fit each other.
        """
        if self.num_frames < 2:
            raise UserError(f"TECO learns from clips of two frames or more, not {self.num_frames}")
        return TECO(self)

    def places_of_codes(self, frame: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a frame's codes, for frames of this many places.

        Raises:
            UserError: encoder, decoder and temporal transformer do not divide it evenly.
        """
        halved = 2 ** (len(self.encoder_widths) - 1)
        if len(self.encoder_widths) != len(self.decoder_widths) or any(n % (halved * self.stride) for n in frame):
            raise UserError(
                f"frames of {frame[0]} x {frame[1]} are halved {len(self.encoder_widths) - 1} times by "
                f"the encoder ({len(self.decoder_widths) - 1} by the decoder) and then share tokens {self.stride} x "
                f"{self.stride}: that must be equal and come out even"
            )
        return frame[0] // halved, frame[1] // halved

    def build_space(self) -> CodeFrames | PixelFrames:
        """What a frame is to the networks.

        Raises:
            UserError: the tokenizer codes several frames together.
        """
        if self.tokenizer is None:
            return PixelFrames(num_frames=self.num_frames, size=self.size, sigma=self.pixel_sigma)
        tokenizer = self.build_tokenizer()
        if tokenizer.patch_size[0] != 1:
            raise UserError(
                f"TECO predicts single frames, and the tokenizer codes {tokenizer.patch_size[0]} together: give one "
                "that codes each alone, such as VQ-GAN"
            )
        return CodeFrames(tokenizer, num_frames=self.num_frames, size=self.size, label_smoothing=self.label_smoothing)
