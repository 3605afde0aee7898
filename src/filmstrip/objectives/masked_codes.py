"""Restoring hidden codes of a tokenizer: MaskGIT's objective over a clip, and frame after frame."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions
from filmstrip.models.frame_history import FrameHistory
from filmstrip.models.masked_transformer import MaskedTransformer
from filmstrip.nn.masked_sampling import MaskedSampling, Schedule, draft_log_prob, draw_masks, fill
from filmstrip.nn.sampling import Sampling, guided
from filmstrip.objectives.latent import LatentObjective
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Condition, Loss, Tokens, as_float
from filmstrip.randomness import uniform

_SALT = 0x3A5C_0000
_MASKS, _UNKNOWN, _PARTS = _SALT, _SALT + 1, _SALT + 2  # in training; sampling counts up from the next 4096


class MaskedCodes(LatentObjective):
    """Restores hidden codes; with a ``history`` frame by frame, each from the summary of those before."""

    def __init__(
        self,
        tokenizer: TokenizerObjective,
        *,
        num_frames: int,
        size: int,
        transformer: MaskedTransformer,
        conditions: FrameConditions,
        history: FrameHistory | None,
        context_frames: int,
        condition_drop: float,
        schedule: Schedule,
        sampling: MaskedSampling,
    ) -> None:
        super().__init__(tokenizer, num_frames=num_frames, size=size)
        self.transformer = transformer
        self.conditions = conditions
        self.history = history
        self.per_frame = self.grid.h * self.grid.w * self.num_codebooks
        self.context = context_frames // tokenizer.patch_size[0]
        self.condition_drop = condition_drop
        self.schedule, self.sampling = schedule, sampling
        self.requires = ("seed", "action") if conditions.known.has_action else ("seed",)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of the hidden codes, nats a code."""
        ids, seed = self._whole(batch), batch["seed"]
        unknown = uniform(seed, 1, _UNKNOWN)[:, 0] < self.condition_drop
        given = self._given(ids, batch.get("label"), batch.get("action"), unknown)
        hidden = self._masks(seed)
        shown = ids.masked_fill(hidden, self.transformer.mask_id)
        logits = self._logits(shown, self._context(ids, given))
        each = F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        loss = (each * hidden).sum() / hidden.sum()
        right = ((logits.argmax(dim=2) == ids) & hidden).sum() / hidden.sum()
        return Loss(loss, {"accuracy": right.detach()})

    def _whole(self, batch: Batch) -> Tensor:
        """The ids of clips that fill the grid, ``B N``."""
        ids, places = self.codes(batch).ids, self.grid.t * self.per_frame
        if ids.shape[1] != places:
            raise UserError(
                f"clips have {ids.shape[1]} codes and the model learns from {places}, of {self.num_frames} frames: "
                "set data.clip.num_frames or objective.num_frames"
            )
        return ids

    def _masks(self, seed: Tensor) -> Tensor:
        """Which codes are hidden in training, ``B N``: a share of all but the context's, or of every frame's own."""
        frames = self.grid.t
        if self.history is not None:
            return draw_masks(seed, frames, self.per_frame, schedule=self.schedule, salt=_MASKS).flatten(1)
        places = (frames - self.context) * self.per_frame
        hidden = draw_masks(seed, 1, places, schedule=self.schedule, salt=_MASKS).flatten(1)
        return F.pad(hidden, (self.context * self.per_frame, 0))

    def _given(
        self, ids: Tensor, label: Tensor | None, action: Tensor | None, unknown: Tensor | None = None
    ) -> Tensor | None:
        """The conditions of clips of ids ``B N``."""
        frames = ids.shape[1] // self.per_frame
        return self.conditions(len(ids), frames, label=label, action=action, unknown=unknown)

    def _context(self, ids: Tensor, given: Tensor | None) -> Tensor | None:
        """What goes to every place beside its code, ``B N C``."""
        if self.history is None:
            return None if given is None else repeat(given, "b t g -> b (t n) g", n=self.per_frame)
        frames = ids.unflatten(1, (-1, self.per_frame))
        start = torch.full_like(frames[:, :1], self.transformer.mask_id)
        summary = self.history(self._embed(torch.cat([start, frames[:, :-1]], dim=1)), given)
        return rearrange(self.history.spread(summary), "b t d h w -> b (t h w) d")

    def _embed(self, frames: Tensor) -> Tensor:
        """Frames of ids ``B T n`` as ``B T D h w``."""
        return rearrange(self.transformer.embed(frames), "b t (h w) d -> b t d h w", h=self.grid.h)

    def _logits(self, shown: Tensor, context: Tensor | None) -> Tensor:
        """``B N K``: of the whole grid, or of each frame given its context."""
        if self.history is None:
            return self.transformer(shown, context)
        frames = rearrange(shown, "b (t n) -> (b t) n", n=self.per_frame)
        context = rearrange(context, "b (t n) d -> (b t) n d", n=self.per_frame)
        return rearrange(self.transformer(frames, context), "(b t) n k -> b (t n) k", b=len(shown))

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability (``B``, nats) of a clip's codes, drafted in ``sampling.steps`` random parts.

        Exact for the order of parts that the clip's seed gives; frames in order are drafted one after the other.
        Frames that training always shows are given.
        """
        ids, seeds = self._whole(batch), batch["seed"]
        context = self._context(ids, self._given(ids, batch.get("label"), batch.get("action")))
        unknown = torch.ones_like(ids, dtype=torch.bool)
        if self.history is None:
            unknown[:, : self.context * self.per_frame] = False
        else:  # every frame is a grid of its own
            ids, unknown = (rearrange(x, "b (t n) -> (b t) n", n=self.per_frame) for x in (ids, unknown))
            context = rearrange(context, "b (t n) d -> (b t) n d", n=self.per_frame)
            frame = torch.arange(self.grid.t, device=seeds.device)
            seeds = (seeds[:, None] + (frame << 40)).flatten()
        each = draft_log_prob(
            lambda shown: self.transformer(shown, context),
            ids,
            unknown,
            mask_id=self.transformer.mask_id,
            seeds=seeds,
            parts=self.sampling.steps,
            salt=_PARTS,
        )
        return each.unflatten(0, (len(batch["seed"]), -1)).sum(dim=1)

    def dims_of(self, batch: Batch) -> int:
        """How many codes of a clip are predicted, each a dimension of bits/dim."""
        return (self.grid.t - self.context) * self.per_frame

    def sample(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1; frames together are always as many as in training.

        Raises:
            UserError: the condition does not fit the model.
        """
        return torch.cat(
            [*self._given_frames(condition), *self.stream(condition, seed=seed, sampling=sampling)], dim=1
        )

    @torch.no_grad()
    def stream(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """What follows the given frames: frame by frame if they are made in order and coded singly, else at once."""
        sampling = self.sampling.adapted(sampling)
        self._check(condition)
        device = self.transformer.bias.device
        seeds = seed + torch.arange(condition.batch_size, device=device)
        known = torch.empty(condition.batch_size, 0, dtype=torch.int64, device=device)
        if condition.video is not None and condition.video.shape[1]:
            known = self.codes({"video": condition.video}).ids
        draw = self._draw_together if self.history is None else self._draw_in_order
        frames = list(known.split(self.per_frame, dim=1))
        for frame in draw(known, condition, seeds, sampling):
            if self.tokenizer.patch_size[0] == 1:
                yield self._render(frame)
            frames.append(frame)
        if self.tokenizer.patch_size[0] > 1:
            given = 0 if condition.video is None else condition.video.shape[1]
            yield self._render(torch.cat(frames, dim=1))[:, given:]

    def _render(self, ids: Tensor) -> Tensor:
        return self.video_of(Tokens(self.grid._replace(t=ids.shape[1] // self.per_frame), ids=ids))

    def _draw_together(
        self, known: Tensor, condition: Condition, seeds: Tensor, sampling: MaskedSampling
    ) -> Iterator[Tensor]:
        """All new codes at once, ``B N``."""
        places = self.grid.t * self.per_frame
        ids = F.pad(known, (0, places - known.shape[1]), value=self.transformer.mask_id)
        unknown = torch.arange(places, device=ids.device).ge(known.shape[1]).expand_as(ids)
        context = self._context(ids, self._guided_given(condition, sampling))
        ids = self._fill(ids, unknown, context, seeds, sampling, _SALT + 4096)
        if known.shape[1] < places:
            yield ids[:, known.shape[1] :]

    def _draw_in_order(
        self, known: Tensor, condition: Condition, seeds: Tensor, sampling: MaskedSampling
    ) -> Iterator[Tensor]:
        """The codes of one new frame after the other, ``B n``."""
        b, frames = condition.batch_size, condition.num_frames // self.tokenizer.patch_size[0]
        given = self._guided_given(condition, sampling)
        wide = b if sampling.guidance == 1 else 2 * b
        start = known.new_full((b, self.per_frame), self.transformer.mask_id)
        fresh = torch.cat([start, known], dim=1).unflatten(1, (-1, self.per_frame))
        seen = fresh.shape[1] - 1
        cache = self.history.new_cache(wide, frames)
        for now in range(seen, frames):
            led_by = None if given is None else given[:, now + 1 - fresh.shape[1] : now + 1]
            summary = self.history(self._embed(fresh.repeat(wide // b, 1, 1)), led_by, cache=cache)[:, -1:]
            context = rearrange(self.history.spread(summary), "b 1 d h w -> b (h w) d")
            unknown = torch.ones_like(start, dtype=torch.bool)
            ids = self._fill(start, unknown, context, seeds, sampling, _SALT + 4096 * (now + 1))
            yield ids
            fresh = ids[:, None]

    def _guided_given(self, condition: Condition, sampling: MaskedSampling) -> Tensor | None:
        """The conditions; with guidance, once more without."""
        size = (condition.batch_size, condition.num_frames // self.tokenizer.patch_size[0])
        given = self.conditions(*size, label=condition.label, action=condition.action)
        if sampling.guidance == 1:
            return given
        if given is None or (condition.label is None and condition.action is None):
            raise UserError("guidance strengthens a condition: give a class or actions, or set it to 1")
        return torch.cat([given, self.conditions(*size, label=None, action=None)])

    def _fill(
        self,
        ids: Tensor,
        unknown: Tensor,
        context: Tensor | None,
        seeds: Tensor,
        sampling: MaskedSampling,
        salt: int,
    ) -> Tensor:
        def predict(shown: Tensor) -> Tensor:
            if sampling.guidance == 1:
                return self.transformer(shown, context)
            return guided(*self.transformer(shown.repeat(2, 1), context).chunk(2), sampling.guidance)

        mask_id = self.transformer.mask_id
        return fill(predict, ids, unknown, mask_id=mask_id, seeds=seeds, sampling=sampling, salt=salt)

    def _given_frames(self, condition: Condition) -> tuple[Tensor, ...]:
        return () if condition.video is None else (as_float(condition.video),)

    def _check(self, condition: Condition) -> None:
        """Refuse what the model cannot make."""
        each, wanted = self.tokenizer.patch_size[0], condition.num_frames
        given = 0 if condition.video is None else condition.video.shape[1]
        if self.history is None and wanted != self.num_frames:
            raise UserError(f"this model fills clips of {self.num_frames} frames, no other number: got {wanted}")
        if not given <= wanted <= self.num_frames or wanted % each or given % each:
            raise UserError(
                f"this model makes up to {self.num_frames} frames, {each} at a time, those given included: got "
                f"{wanted} frames, {given} of them given"
            )
        self.conditions.check(condition, optional=self.condition_drop > 0)
