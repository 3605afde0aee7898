"""TECO: a few codes say what is new in a frame; a transformer over few tokens a frame remembers hundreds of frames.

An encoder codes each frame given the one before, into codes of unit length; a causal transformer over strided codes
summarises the past; a masked transformer fills the next frame's codes from the summary, and a decoder turns both
into the frame. Prior and decoder train on a random few frames only (DropLoss).
Yan et al., "Temporally Consistent Transformers for Video Generation", ICML 2023; thesis chapter 3 and appendix B.

    filmstrip train generation.teco:dmlab --data.path PATH --objective.tokenizer-run RUN

The prior of z_t sees the summary of z_<t (and the action that leads to frame t); the first frame's z_1 is the
encoder's output, not quantised. The networks and the loss are those of the published code
(tests/parity/test_published_teco.py): codes of 32 channels are projected to ``latent_dim``, a frame is learnt that
stands before the first one, and so are the tokens that start the temporal transformer's sequence, which every frame
sees; the loss is in nats a frame, labels are smoothed, actions have 16 channels; AdamW's second beta is 0.95, and
gradients are not clipped. The text does not give ``latent_dim``: we take those with which the networks have the
stated sizes within 1%. The published configurations have 64, 128, 256 and 256, with 6 blocks in Minecraft's decoder
where the text has 8, and 2048 codes for Habitat's 1024 (173 and 271 M for the first two); ``weights/teco.py`` maps
weights of any of them, ``weights/vqgan.py`` those of their tokenizers. ``dmlab_200`` and so on are the text's for
shorter clips at equal cost (its tables B.13 and B.14). Minecraft's printed sizes there, 261, 257 and 140 M, do not
follow from the printed layers, which have 267, 265 and 164 M: of the last the transformers and the decoder's
convolutions alone make 142 M, and the encoder's 20 more.

Where we deviate: frames of DropLoss are drawn for each clip, without repeats (published: the same for all clips, with
repeats, and one past the end counts as the last); the masked share of a frame is rounded up (published: down); the
prior's positions add up (published: the axes share the channels), which can be what is published. Codes start with
length one (published: about 0.1). Without actions nothing stands in their place (published: the embedding of action
0). DMLab's actions are those that lead to a frame (published: those done after it, as its files have them). We revise
half of the codes at a time, as the text has it (published: an eighth), and stop where the positions end (published:
the window moves on).

The paper reports, on DMLab: FVD 48, PSNR 21.9, SSIM 0.703, LPIPS 0.157; on 16 frames of Something-Something a
training step of 125 ms with DropLoss at 0.8 and 182 ms without; on Minecraft 186 ms to sample a frame against 8,443
of Perceiver AR. We measured, before the networks had all of the published form (the start of the sequence, a
projection after it, the GELUs), with ``python claims/teco_droploss.py`` (DMLab's network an eighth as wide, 300
frames, two CPU cores): 522 ms a step with a tenth of the frames and 2,488 ms with all; with
``claims/teco_sampling.py`` (17 M parameters, one clip, 300 frames): 108 ms a frame, 49 times faster on average than a
cached autoregressive transformer as wide and deep.

What did not reproduce then, at the size of ``claims/teco_consistency.py`` (mazes of 16 x 16 pixels, 96 frames, 400
steps, one seed), is memory: in 395 frames that show again what was given more than 8 frames before, of 16 walks,
whole walks give 15.75 dB and clips of 8 frames in a sliding window 15.82 (difference -0.08, standard error over walks
0.05; repeating the last frame 13.61). Both have learnt to move what they see (loss 465 and 461 nats a frame), and
neither to look back: the paper trains for a million steps. Walks must be long: within 64 frames only 2% of the last
24 show again what the first 40 did, within 96 frames 73% of the last 32. Nor where one turns on the spot and
everything was seen a turn ago (``--look-round --frames 64 --context 40``): 14.30 dB against 14.29.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions, Known
from filmstrip.models.frame_history import FrameHistory
from filmstrip.models.masked_transformer import MaskedTransformer
from filmstrip.models.residual_frames import ResidualDecoder, ResidualEncoder
from filmstrip.nn.masked_sampling import MaskedSampling, Schedule, draw_masks, fill
from filmstrip.nn.patches import take
from filmstrip.nn.quantise import Quantised, VectorQuantiser
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.frame_space import CodeFrames, PixelFrames
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Batch, Condition, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.train.config import Loop, Optim

_SALT = 0x7EC0_0000
_FRAMES, _MASKS, _ACTIONS = _SALT, _SALT + 1, _SALT + 2  # of training; sampling counts up from the next 4096
_RENDERED = 16  # frames decoded at once


class TECO(Objective):
    """The four networks, trained together; a generator that continues video."""

    def __init__(
        self,
        space: CodeFrames | PixelFrames,
        *,
        encoder: ResidualEncoder,
        quantiser: VectorQuantiser,
        latent_dim: int,
        conditions: FrameConditions,
        history: FrameHistory,
        prior: MaskedTransformer,
        decoder: ResidualDecoder,
        drop_loss: float,
        condition_drop: float,
        schedule: Schedule,
        sampling: MaskedSampling,
    ) -> None:
        super().__init__()
        self.space = space
        self.before_first = nn.Parameter(torch.randn(space.channels, *space.places) * 0.02)
        self.encoder = encoder
        self.to_code = nn.Linear(latent_dim, quantiser.input_dim, bias=False)
        self.quantiser = quantiser
        self.from_code = nn.Linear(quantiser.latent_dim, latent_dim, bias=False)
        self.conditions = conditions
        self.history = history
        self.prior = prior
        self.decoder = decoder
        self.drop_loss, self.condition_drop = drop_loss, condition_drop
        self.schedule, self.sampling = schedule, sampling
        self.requires = ("seed", "action") if conditions.known.has_action else ("seed",)

    @property
    def tokenizer(self) -> Objective | None:
        """The frozen tokenizer of the frames; none on pixels."""
        return getattr(self.space, "tokenizer", None)

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
        hidden = uniform(seed, 1, _ACTIONS)[:, 0] < self.condition_drop
        given = self.conditions(b, t, label=None, action=batch.get("action"), unknown=hidden)
        summary = self.history(z[:, :-1], None if given is None else given[:, 1:])
        chosen = self._choose_frames(seed, t - 1)
        pick = lambda x: take(x.flatten(2), chosen).unflatten(2, x.shape[2:])  # noqa: E731
        h = self.history.spread(pick(summary)).flatten(0, 1)
        z, ids, targets = (pick(x).flatten(0, 1) for x in (z[:, 1:], passage.ids[:, 1:], targets[:, 1:]))

        masks = draw_masks(seed, chosen.shape[1], ids[0].numel(), schedule=self.schedule, salt=_MASKS).flatten(0, 1)
        prior = self._prior_nats(ids.flatten(1), masks, h)
        frame = self.space.nats(self.decoder(torch.cat([h, z], dim=1)), targets).mean()
        metrics = {"frame_nats": frame.detach(), "prior_nats": prior.detach(), **passage.metrics}
        return Loss(frame + prior + 0.5 * passage.loss, metrics)  # half of the squared distances, as published

    def _choose_frames(self, seed: Tensor, frames: int) -> Tensor:
        """Which frames the loss is of, ``B n`` int64, in the order of time."""
        count = max(1, int((1 - self.drop_loss) * frames + 1e-6))
        return uniform(seed, frames, _FRAMES).argsort(dim=1)[:, :count].sort(dim=1).values

    def _prior_nats(self, ids: Tensor, masks: Tensor, h: Tensor) -> Tensor:
        """Mean nats of a hidden code, times the codes of a frame."""
        logits = self.prior(ids.masked_fill(masks, self.prior.mask_id), rearrange(h, "n d h w -> n (h w) d"))
        each = F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none").view_as(masks)
        return (each * masks).sum() / masks.sum() * ids.shape[1]

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
            ids = self._draw(h, seeds, sampling, salt=_SALT + 4096 * now)
            z = rearrange(self.from_code(self.quantiser.decode(ids)), "b h w d -> b 1 d h w").to(h.dtype)
            yield self.space.likeliest(self.decoder(torch.cat([h, z[:, 0]], dim=1)))

    def _draw(self, h: Tensor, seeds: Tensor, sampling: MaskedSampling, *, salt: int) -> Tensor:
        """The codes of the next frame, ``B h w``, from its summary ``B D h w``."""
        context = rearrange(h, "b d h w -> b (h w) d")
        ids = torch.full(context.shape[:2], self.prior.mask_id, device=h.device)
        ids = fill(
            lambda partly: self.prior(partly, context),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            mask_id=self.prior.mask_id,
            seeds=seeds,
            sampling=sampling,
            salt=salt,
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
    """The four networks; the defaults are DMLab's. Without a tokenizer, frames are pixels."""

    tokenizer: ObjectiveConfig | None = None
    num_frames: Count = 300
    label_smoothing: ShareBelowOne = 0.01
    """Share of the probability that a frame's code spreads over all codes in the loss, where frames are codes."""
    pixel_sigma: Rate = 0.1
    """Standard deviation of a pixel, where frames are pixels: weighs their error against the codes'."""
    encoder_widths: Annotated[tuple[Count, ...], NotEmpty] = (256, 512)
    """Channels at each size of a frame, from the full one; each halves it."""
    encoder_blocks: Count = 2
    decoder_widths: Annotated[tuple[Count, ...], NotEmpty] = (256, 512)
    decoder_blocks: Count = 4
    codebook_size: Count = 1024
    code_dim: Count = 32
    """Channels of a code."""
    latent_dim: Count = 64
    """Channels that codes are projected to."""
    stride: Count = 8
    """Places along each axis of a frame's codes that share a token of the temporal transformer."""
    width: Count = 1024
    depth: Count = 8
    num_heads: Count = 16
    prior_width: Count = 512
    prior_depth: Count = 8
    prior_num_heads: Count = 8
    prior_code_width: Count = 256
    drop_loss: ShareBelowOne = 0.9
    """Share of the frames that prior and decoder leave out in each step."""
    conditions: tuple[Literal["action"], ...] = ()
    """Whether actions lead from frame to frame."""
    condition_drop: Share = 0.0
    """Share of the clips whose actions are hidden in training, so that the model also does without."""
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

    def build(self) -> TECO:
        """Build the networks with fresh weights.

        Raises:
            UserError: the tokenizer codes several frames together, or sizes do not fit each other.
        """
        if self.num_frames < 2:
            raise UserError(f"TECO learns from clips of two frames or more, not {self.num_frames}")
        space = self._space()
        halved = 2 ** (len(self.encoder_widths) - 1)
        if len(self.encoder_widths) != len(self.decoder_widths) or any(
            n % (halved * self.stride) for n in space.places
        ):
            raise UserError(
                f"frames of {space.places[0]} x {space.places[1]} are halved {len(self.encoder_widths) - 1} times by "
                f"the encoder ({len(self.decoder_widths) - 1} by the decoder) and then share tokens {self.stride} x "
                f"{self.stride}: that must be equal and come out even"
            )
        size = tuple(n // halved for n in space.places)
        action = "action" in self.conditions
        known = Known(num_actions=self.num_actions if action else 0, action_dim=self.action_dim if action else 0)
        conditions = FrameConditions(known, label_width=0, action_width=self.action_width)
        d = self.latent_dim
        return TECO(
            space,
            encoder=ResidualEncoder(2 * space.channels, d, widths=self.encoder_widths, blocks=self.encoder_blocks),
            quantiser=VectorQuantiser(self.codebook_size, self.code_dim, unit=True),
            latent_dim=d,
            conditions=conditions,
            history=FrameHistory(
                input_dim=d,
                given_dim=conditions.width,
                output_dim=d,
                size=size,
                stride=self.stride,
                num_frames=self.num_frames - 1,
                width=self.width,
                depth=self.depth,
                num_heads=self.num_heads,
            ),
            prior=MaskedTransformer(
                codebook_size=self.codebook_size,
                grid=(1, *size),
                width=self.prior_width,
                depth=self.prior_depth,
                num_heads=self.prior_num_heads,
                code_width=self.prior_code_width,
                condition_width=d,
                form="teco",
            ),
            decoder=ResidualDecoder(2 * d, space.output_dim, widths=self.decoder_widths, blocks=self.decoder_blocks),
            drop_loss=self.drop_loss,
            condition_drop=self.condition_drop,
            schedule=self.schedule,
            sampling=self.sampling,
        )

    def _space(self) -> CodeFrames | PixelFrames:
        if self.tokenizer is None:
            return PixelFrames(num_frames=self.num_frames, size=self.size, sigma=self.pixel_sigma)
        tokenizer = self.build_tokenizer()
        if tokenizer.patch_size[0] != 1:
            raise UserError(
                f"TECO predicts single frames, and the tokenizer codes {tokenizer.patch_size[0]} together: give one "
                "that codes each alone, such as VQ-GAN"
            )
        return CodeFrames(tokenizer, num_frames=self.num_frames, size=self.size, label_smoothing=self.label_smoothing)


def tiny() -> Run:
    """Motions at 32 x 32 pixels, without a tokenizer; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=TECOConfig(
            num_frames=8,
            size=32,
            encoder_widths=(16, 24, 32),
            encoder_blocks=1,
            decoder_widths=(16, 24, 32),
            decoder_blocks=1,
            codebook_size=64,
            code_dim=16,
            latent_dim=32,
            stride=4,
            width=64,
            depth=2,
            num_heads=4,
            prior_width=64,
            prior_depth=2,
            prior_num_heads=4,
            prior_code_width=32,
            drop_loss=0.5,
        ),
        optim=Optim(lr=2e-3, weight_decay=0.0),
        train=Loop(steps=100),
    )


def _paper(tokenizer: str, *, num_frames: int, size: int, actions: float | None, **network: object) -> Run:
    """A million steps of batches of 32, 1e-4; ``actions`` is the share of clips without, none for no actions."""
    config = TECOConfig(
        tokenizer=find(f"tokenizers.vqgan:{tokenizer}").objective,
        num_frames=num_frames,
        size=size,
        conditions=() if actions is None else ("action",),
        num_actions=0 if actions is None else 3,
        condition_drop=actions or 0.0,
        **network,
    )
    return Run(
        data=Data(
            clip=Clip(num_frames=num_frames, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=config,
        optim=Optim(lr=1e-4, weight_decay=1e-5, betas=(0.9, 0.95), warmup=0.01),
        train=Loop(steps=1_000_000, precision="bfloat16", clip_grad=None),
    )


def _shorter(run: Run, num_frames: int, **network: object) -> Run:
    """The same on fewer frames, with more of a network for each."""
    clip = replace(run.data.clip, num_frames=num_frames)
    objective = replace(run.objective, num_frames=num_frames, **network)
    return replace(run, data=replace(run.data, clip=clip), objective=objective)


def dmlab() -> Run:
    """DMLab-40k, 300 frames of 64 x 64, with and without actions: 169 M parameters."""
    return _paper("dmlab", num_frames=300, size=64, actions=0.5, latent_dim=32)


def dmlab_200() -> Run:
    """DMLab-40k, 200 frames: 169 M parameters."""
    return _shorter(dmlab(), 200, drop_loss=0.85)


def dmlab_100() -> Run:
    """DMLab-40k, 100 frames of 4 x 4 tokens: 86 M parameters."""
    return _shorter(dmlab(), 100, drop_loss=0.85, stride=2, width=512, num_heads=8)


def dmlab_50() -> Run:
    """DMLab-40k, 50 frames of 4 x 4 tokens: 195 M parameters."""
    return _shorter(dmlab(), 50, drop_loss=0.85, stride=2, prior_width=768, prior_num_heads=12)


def minecraft() -> Run:
    """Minecraft-200k, 300 frames of 128 x 128, with actions: 274 M parameters."""
    return _paper(
        "minecraft",
        num_frames=300,
        size=128,
        actions=0.0,
        encoder_blocks=4,
        decoder_blocks=8,
        latent_dim=64,
        depth=12,
        prior_width=768,
        prior_depth=6,
        prior_num_heads=12,
    )


def minecraft_200() -> Run:
    """Minecraft-200k, 200 frames of 2 x 2 tokens: 266 M parameters."""
    return _shorter(minecraft(), 200, drop_loss=0.85, stride=4)


def minecraft_100() -> Run:
    """Minecraft-200k, 100 frames of 4 x 4 tokens: 264 M parameters."""
    return _shorter(minecraft(), 100, drop_loss=0.25, stride=2)


def minecraft_50() -> Run:
    """Minecraft-200k, 50 frames of 4 x 4 tokens: 164 M parameters."""
    return _shorter(minecraft(), 50, drop_loss=0.25, stride=2, width=512, num_heads=8, prior_depth=8)


def habitat() -> Run:
    """Habitat, 300 frames of 128 x 128, with and without actions: 386 M parameters."""
    return _paper(
        "habitat",
        num_frames=300,
        size=128,
        actions=0.5,
        encoder_blocks=4,
        decoder_blocks=8,
        latent_dim=256,
        stride=4,
        prior_width=1024,
        prior_depth=16,
        prior_num_heads=16,
    )


def kinetics600() -> Run:
    """Kinetics-600, 100 frames of 128 x 128, no actions: 1.09 G parameters."""
    return _paper(
        "kinetics600",
        num_frames=100,
        size=128,
        actions=None,
        encoder_blocks=8,
        decoder_blocks=10,
        latent_dim=256,
        stride=2,
        width=1536,
        depth=24,
        num_heads=24,
        prior_width=1024,
        prior_depth=24,
        prior_num_heads=16,
    )
