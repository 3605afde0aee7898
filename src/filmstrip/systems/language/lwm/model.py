"""LWM: a language model with a second vocabulary for the codes of a tokenizer, its losses and its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, CountOrZero
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.vision_text import VisionTextInfo
from filmstrip.errors import UserError
from filmstrip.inference import device_of
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import config_in_hub, from_llama, to_llama
from filmstrip.models.video_language import Seen, Visuals
from filmstrip.nn.blockwise import cross_entropy_in_blocks
from filmstrip.nn.initialisation import STD
from filmstrip.nn.linear import Linear, linear
from filmstrip.nn.sampling import Sampling, draw, guided
from filmstrip.objectives.language import Average, loss_weights, of_ring
from filmstrip.objectives.latent import LatentConfig, LatentObjective
from filmstrip.objectives.text import TextModel, TextModelConfig, laid_out
from filmstrip.protocols import Batch, Condition, Loss, Objective, RingOfProcesses, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.systems.language.lwm.stream import Alphabet, Grammar, Stream, left_padded, streams, vision_tokens
from filmstrip.systems.language.lwm.weights import from_published
from filmstrip.weights.keymap import Weights, check_names

_VISION = ("vision_embed.", "vision_head.")
_AT_ONCE = 32
"""Number of frames that are coded at a time."""
Losses = Literal["halves", "joint"]


@dataclass(frozen=True, kw_only=True)
class VisionSampling(Sampling):
    """Drawing of images and of first frames of videos, and of the frames after these."""

    guidance: AnyNumber = 5.0
    """Guidance of images and of first frames; 1 for none."""
    later: Sampling = field(default_factory=lambda: Sampling(top_k=1000))
    """Drawing of the frames after the first one."""


class TwoVocabularies(Decoder):
    """A decoder with a table and an output layer of its own for vision tokens, whose ids follow those of text."""

    def __init__(self, config: DecoderConfig, vision_size: int) -> None:
        """Build it with fresh weights for ``vision_size`` vision tokens.

        Raises:
            UserError: as of :class:`Decoder`, or it is in muP.
        """
        if config.base_width is not None:
            raise UserError("the table of vision tokens has no rates of muP: leave out objective.decoder.base-width")
        super().__init__(config)
        self.vision_embed = nn.Embedding(vision_size, config.width)
        self.vision_head = Linear(config.width, vision_size, bias=False)
        for table in (self.vision_embed, self.vision_head):
            nn.init.normal_(table.weight, std=STD)

    def embedded(self, tokens: Tensor) -> Tensor:
        """Embeddings ``B N D`` of ids (``B N`` int64), each from the table of its modality."""
        if tokens.is_floating_point():
            return tokens
        vision = tokens >= self.vocab_size
        text = self.embed(tokens.masked_fill(vision, 0))
        return torch.where(vision[..., None], self.vision_embed((tokens - self.vocab_size).clamp(min=0)), text)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of both output layers, text first: ``... vocab_size + vision_size``."""
        return torch.cat([super().logits(hidden), linear(hidden, self.vision_head.weight)], dim=-1)

    def losses(self, hidden: Tensor, target: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy ``...`` of ``target`` ids ``...`` among those of their own modality, and the ids put first
        there."""
        vision = target >= self.vocab_size
        text_losses, text = super().losses(hidden, target.masked_fill(vision, 0), smoothing=smoothing)
        flat, ids = hidden.flatten(0, -2), (target - self.vocab_size).clamp(min=0).flatten()
        losses, best = cross_entropy_in_blocks(flat, self.vision_head.weight, ids, smoothing=smoothing)
        own = torch.where(vision, losses.view_as(target), text_losses)
        return own, torch.where(vision, best.view_as(target) + self.vocab_size, text)

    def joint_losses(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`losses`, among the ids of both modalities."""
        weight = torch.cat([self.output_weight, self.vision_head.weight])
        losses, best = cross_entropy_in_blocks(hidden.flatten(0, -2), weight, target.flatten())
        return losses.view_as(target), best.view_as(target)


class LWM(LatentObjective):
    """Learns the next token of streams of text and of codes of video.

    It is one of :class:`~filmstrip.protocols.Answers`, and a :class:`~filmstrip.protocols.StreamingGenerator`.
    """

    requires = ("text", "text_length", "learnt")
    takes_packed = True
    starts_whole = True
    any_grid = True
    sees_several = True
    ring: RingOfProcesses | None = None
    """Processes that share the tokens of each row in training; none if each row is one process's."""
    places: Tensor

    def __init__(self, config: LWMConfig) -> None:
        super().__init__(config.build_tokenizer(), num_frames=config.num_frames, size=config.size)
        self.config = config
        self.per_frame = self.grid.h * self.grid.w * self.num_codebooks
        wanted = self.codebook_size + 2
        size = config.vision_vocab_size or wanted
        if size < wanted:
            raise UserError(
                f"objective.vision_vocab_size is {size}, and {self.codebook_size} codes with the ends of frames and "
                f"of videos are {wanted}"
            )
        self.decoder = TwoVocabularies(config.decoder, size)
        self.alphabet = Alphabet(
            text=config.decoder.vocab_size,
            codes=self.codebook_size,
            per_frame=self.per_frame,
            begin=config.begin,
            end=config.end,
        )
        self.register_buffer("places", torch.tensor(config.placeholders, dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Half of the nats of a learnt token of text and half of those of a vision token (``losses``); logs both,
        the shares of tokens that are put first, and that of shared rows' places that are no padding."""
        stream, numbers = self._stream_of(batch), batch.get("document")
        ring = self.ring if self.training else None
        target, learnt = stream.tokens[:, 1:], stream.learnt[:, 1:]
        weights = self._weights(target, learnt, batch.get("step_means"))
        sums, right = self._sums(stream.tokens, weights, numbers, ring)
        loss, _ = of_ring(sums.sum(), right.sum(), ring)
        if ring is not None:
            sums, right = ring.sum(torch.stack([sums.detach(), right.to(sums.dtype)]))
        is_vision = target >= self.alphabet.text
        counts = torch.stack([(learnt & ~is_vision).sum(), (learnt & is_vision).sum()])
        scale = 2.0 if self.config.losses == "halves" else 1.0
        text, vision = (scale * sums.detach()).unbind()
        text_right, vision_right = (right / counts.clamp(min=1)).unbind()
        metrics = {"text": text, "vision": vision, "text_top1": text_right, "vision_top1": vision_right}
        if numbers is not None:
            metrics["fill"] = (numbers > 0).float().mean()
        return Loss(loss, metrics)

    def _weights(self, target: Tensor, learnt: Tensor, step_means: Tensor | None) -> Tensor:
        """What the losses of ``B N`` targets are multiplied by.

        Each half is a mean over its own tokens: over all of a batch, or over each example's and then over all
        examples of the step, those included that have none of the kind.
        """
        average = self.config.average
        if self.config.losses == "joint":
            return loss_weights(learnt, average, step_means)
        is_vision = target >= self.alphabet.text
        halves = [learnt & ~is_vision, learnt & is_vision]
        if average == "tokens":  # how many there are of a kind is known of the batch alone
            return torch.stack([loss_weights(half, average) for half in halves]).sum(dim=0) / 2
        examples = learnt.any(dim=1).sum().clamp(min=1) if step_means is None else step_means[0]
        return (
            torch.stack([half / half.sum(dim=1, keepdim=True).clamp(min=1) for half in halves]).sum(0) / 2 / examples
        )

    def _sums(
        self, tokens: Tensor, weights: Tensor, numbers: Tensor | None, ring: RingOfProcesses | None
    ) -> tuple[Tensor, Tensor]:
        """The weighted losses of text and of vision tokens, ``2``, and how many of each are put first, ``2``; of this
        process's tokens, if several share them."""
        rows = laid_out(tokens, weights, numbers, ring)
        hidden, target, weights = rows.read(self.decoder, ring), rows.target, rows.weight
        score = self.decoder.losses if self.config.losses == "halves" else self.decoder.joint_losses
        losses, best = score(hidden, target)
        is_vision = target >= self.alphabet.text
        parts = [losses * weights * kind for kind in (~is_vision, is_vision)]
        right = (best == target) & (weights > 0)
        return torch.stack([part.sum() for part in parts]), torch.stack(
            [(right & kind).sum() for kind in (~is_vision, is_vision)]
        )

    def _stream_of(self, batch: Batch, seen: Seen | None = None) -> Stream:
        """The streams of a batch, with the video that it brings, or what was ``seen`` before."""
        text, learnt = batch["text"], batch.get("learnt")
        is_place = torch.isin(text, self.places)
        if seen is None and ("video" in batch or "tokens" in batch):
            if (frames := batch.get("frames")) is not None:  # no text speaks of the others
                number = torch.arange(frames.shape[1], device=text.device)
                batch = {**batch, "frames": frames.where(number < is_place.sum(dim=1, keepdim=True), 0)}
            seen = self.watch(batch)
        if isinstance(seen, Visuals):
            vision, sizes = seen.tokens[..., 0], seen.sizes
        elif seen is not None:
            vision, sizes = seen[..., 0], torch.full((len(text), 1), seen.shape[1], device=text.device)
        else:
            vision, sizes = text.new_zeros(len(text), 1), text.new_zeros(len(text), 1)
        learnt = torch.zeros_like(is_place) if learnt is None else learnt
        return streams(text, batch["text_length"], learnt, is_place, vision, sizes)

    def watch(self, batch: Batch) -> Visuals:
        """The vision tokens of a batch's ``video``, or of the codes ``B T*n`` that it brings in place of it
        (``tokens``), whose rows may hold several images and videos (``frames``)."""
        frames = batch.get("frames")
        if "tokens" in batch:
            codes = batch["tokens"].unflatten(1, (-1, self.per_frame))
            steps = torch.full((len(codes), 1), codes.shape[1], device=codes.device) if frames is None else frames
        else:
            codes, steps = self._codes(batch["video"], frames)
        sizes = steps * (self.per_frame + 1)
        grids = torch.stack([torch.ones_like(sizes), torch.ones_like(sizes), sizes], dim=-1)
        return Visuals(vision_tokens(codes, steps, self.alphabet)[..., None], grids * (sizes > 0)[..., None])

    @torch.no_grad()
    def _codes(self, video: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor]:
        """Codes ``B T n`` of videos that lie one after another, and how many steps of time each has, ``B K``; without
        ``frames`` a row is one video."""
        each, whole = self.tokenizer.patch_size[0], frames is None
        if frames is None:
            frames = torch.full((len(video), 1), video.shape[1], device=video.device)
        with torch.autocast(video.device.type, enabled=False):
            if each == 1 and whole:
                parts = [self.tokenizer.encode(part).ids for part in video.flatten(0, 1)[:, None].split(_AT_ONCE)]
                return torch.cat(parts).view(*video.shape[:2], self.per_frame), frames
            if each == 1:
                used = torch.arange(video.shape[1], device=video.device) < frames.sum(dim=1)[:, None]
                own = video[used][:, None]
                codes = torch.zeros((*used.shape, self.per_frame), dtype=torch.int64, device=video.device)
                parts = [self.tokenizer.encode(part).ids for part in own.split(_AT_ONCE) if len(part)]
                if parts:
                    codes[used] = torch.cat(parts)
                return codes, frames
            if frames.shape[1] > 1:
                raise UserError(
                    f"the tokenizer codes {each} frames together, and conversations are about several videos: take a "
                    "tokenizer of single frames (tokenizers.vqgan), or data.reads.visuals 1"
                )
            missing = -video.shape[1] % each
            video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
            ids = self.tokenizer.encode(video).ids
            return ids.unflatten(1, (video.shape[1] // each, self.per_frame)), -(-frames // each)

    def see(self, video: Tensor) -> Tensor:
        """Vision tokens ``B N 1`` of ``B T C H W`` video, with the ends of frames."""
        return self.watch({"video": video}).tokens

    def see_among(self, video: Tensor) -> Tensor:
        """As :meth:`see`."""
        return self.see(video)

    @torch.no_grad()
    def answer(
        self, visual: Seen, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Sampling | None = None
    ) -> Iterator[Tensor]:
        """At most ``count`` ids ``B`` of text after each prompt; see :class:`~filmstrip.protocols.Answers`."""
        stream = self._stream_of(prompt, visual)
        rows, padding = left_padded([row[:length] for row, length in zip(stream.tokens, stream.length.tolist())])
        drawn = uniform(torch.arange(len(rows), device=rows.device) + seed, count, "lwm.answer")
        several = {"padding": padding} if padding.any() else {}
        greedy = Sampling(temperature=0.0)
        text = slice(0, self.alphabet.text)
        yield from self.decoder.decode(rows, drawn, sampling or greedy, allowed=text, **several)

    @torch.no_grad()
    def score(self, visual: Seen, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-likelihood ``B`` of the learnt tokens of conversations about what was seen, and their number."""
        stream = self._stream_of(batch, visual)
        losses, _ = self.decoder.losses(self.decoder(stream.tokens[:, :-1]).hidden, stream.tokens[:, 1:])
        learnt = stream.learnt[:, 1:]
        return -(losses * learnt).sum(dim=1), learnt.sum(dim=1)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Tensor],
        *,
        count: int,
        seed: int = 0,
        sampling: VisionSampling | None = None,
        text: Sampling | None = None,
        frames: int | None = None,
    ) -> Iterator[Tensor]:
        """At most ``count`` tokens ``B`` after each prompt (stream ids ``P``): text and videos as the model wants.

        Text is drawn as ``text`` says (by default the most probable), vision tokens as ``sampling`` does, without
        guidance. ``frames`` is the number of frames of each video, by default as many as the model ends itself.

        Raises:
            UserError: a prompt is no stream of text and videos.
        """
        said, shown = text or Sampling(temperature=0.0), sampling or self.config.sampling
        grammars = [Grammar(self.alphabet, frames) for _ in prompts]
        for grammar, prompt in zip(grammars, prompts):
            for token in prompt.tolist():
                try:
                    grammar.take(token)
                except ValueError as error:
                    raise UserError(f"this prompt is no stream of text and videos: {error}") from None
        rows, padding = left_padded(prompts)
        drawn = uniform(torch.arange(len(rows), device=rows.device) + seed, count, "lwm.write")
        caches, at = self.decoder.new_caches(len(rows), rows.shape[1] + count - 1), 0
        tokens = rows
        for n in range(count):
            logits = self._next(tokens, caches, padding, at)
            at += tokens.shape[1]
            found = []
            for own, grammar, point in zip(logits, grammars, drawn[:, n]):
                allowed = grammar.allowed
                how = said if allowed.start == 0 else shown if grammar.is_first_frame else shown.later
                found.append(draw(own[allowed], point, how) + allowed.start)
                grammar.take(int(found[-1]))
            token = torch.stack(found)
            yield token
            tokens = token[:, None]

    def _next(self, tokens: Tensor, caches: Any, padding: Tensor, at: int) -> Tensor:
        """Logits after tokens that begin at place ``at`` of rows, the first ``padding`` places of which are none."""
        if not padding.any():
            return self.decoder.next_logits(tokens, caches)
        places = at + torch.arange(tokens.shape[1], device=tokens.device)
        positions = (places - padding[:, None]).clamp(min=0)
        return self.decoder.next_logits(tokens, caches, padding, positions=positions)

    def sample(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1: as :class:`~filmstrip.protocols.Generator` says; the pieces of :meth:`stream`.

        Raises:
            UserError: the condition is not what the model takes.
        """
        given = [] if condition.video is None else [as_float(condition.video)]
        return torch.cat([*given, *self.stream(condition, seed=seed, sampling=sampling)], dim=1)

    @torch.no_grad()
    def stream(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """The frames after those given, ``B t C H W`` in 0..1: one by one where the tokenizer rebuilds every frame by
        itself, and otherwise all at the end.

        The first frame is drawn as an image, of the first of the condition's texts, the others after it, of the last.
        Without text videos follow ``<vision>`` alone. ``sampling`` that is no :class:`VisionSampling` is that of all
        frames.

        Raises:
            UserError: the condition is not what the model takes.
        """
        own = sampling or self.config.sampling
        later = own.later if isinstance(own, VisionSampling) else own
        given, steps = self._given(condition)
        prompts = [self._prompts(text, condition.batch_size) for text in condition.text] or [
            self._prompts(None, condition.batch_size)
        ]
        seeds = torch.arange(condition.batch_size, device=device_of(self)) + seed
        drawn = uniform(seeds, steps * self.per_frame, "lwm.codes")
        found: list[Tensor] = []
        for codes in self._drawn(prompts, given, steps, drawn, own, later):
            if not self.tokenizer.frames_apart:
                found.append(codes)
                continue
            yield self.video_of(Tokens(self.grid._replace(t=1), ids=codes))
        if found:
            whole = [] if given is None else [given.flatten(1)]
            tokens = Tokens(self.grid._replace(t=steps), ids=torch.cat([*whole, *found], dim=1))
            first = 0 if condition.video is None else condition.video.shape[1]
            yield self.video_of(tokens)[:, first : condition.num_frames]

    def _given(self, condition: Condition) -> tuple[Tensor | None, int]:
        """Codes ``B t n`` of the frames of a condition, if there are any, and the number of steps of time in all."""
        if condition.label is not None or condition.action is not None:
            raise UserError("this model follows text and first frames, and no classes or actions: give --text")
        each = self.tokenizer.patch_size[0]
        steps = -(-condition.num_frames // each)
        if (video := condition.video) is None:
            return None, steps
        if video.shape[1] % each or tuple(video.shape[3:]) != (self.config.size, self.config.size):
            raise UserError(
                f"first frames are a multiple of {each}, of {self.config.size} x {self.config.size} pixels, not "
                f"{video.shape[1]} of {video.shape[3]} x {video.shape[4]}"
            )
        return self._codes(video, None)[0], steps

    def _prompts(self, text: Batch | None, count: int) -> list[Tensor]:
        """Streams up to where a video begins, of texts, or of ``<vision>`` alone."""
        device = device_of(self)
        if text is None:
            start = [] if self.config.start is None else [self.config.start]
            return [torch.tensor([*start, *self.alphabet.begin], device=device)] * count
        lengths = text["text_length"].tolist()
        return [row[:length].to(device) for row, length in zip(text["text"], lengths)]

    def _drawn(
        self,
        prompts: Sequence[Sequence[Tensor]],
        given: Tensor | None,
        steps: int,
        drawn: Tensor,
        first: Sampling,
        later: Sampling,
    ) -> Iterator[Tensor]:
        """Codes ``B n`` of each frame after those given."""
        known = 0 if given is None else given.shape[1]
        if given is None:
            given = next(self._frames(prompts[0], None, 1, drawn, first))[:, None]
            yield given[:, 0]
            known = 1
        if known < steps:
            rest = drawn[:, known * self.per_frame :]
            yield from self._frames(prompts[-1], given, steps - known, rest, later)

    def _frames(
        self, prompts: Sequence[Tensor], given: Tensor | None, count: int, drawn: Tensor, sampling: Sampling
    ) -> Iterator[Tensor]:
        """Codes ``B n`` of ``count`` frames after prompts and the codes of frames that are given, ``B t n``.

        With guidance a second row of each follows ``<vision>`` alone. The end of every frame is forced.
        """
        own, n = self.alphabet, self.per_frame
        with_guidance = sampling.guidance != 1.0
        rows = [*prompts, *(self._prompts(None, len(prompts)) if with_guidance else ())]
        if given is not None:
            more = torch.full((len(given), 1), given.shape[1] + 1, device=given.device)  # none of them is the last
            seen = vision_tokens(given, more, own)
            rows = [torch.cat([row, seen[i % len(seen)]]) for i, row in enumerate(rows)]
        tokens, padding = left_padded(rows)
        caches, at = self.decoder.new_caches(len(rows), tokens.shape[1] + count * (n + 1)), 0
        for i in range(count):
            found = []
            for k in range(n):
                logits = self._next(tokens, caches, padding, at)[:, own.text : own.eof]
                at += tokens.shape[1]
                if with_guidance:
                    logits = guided(*logits.chunk(2), sampling.guidance)
                found.append(draw(logits, drawn[:, i * n + k], sampling))
                tokens = (found[-1] + own.text)[:, None].repeat(len(rows) // len(logits), 1)
            tokens = F.pad(tokens, (0, 1), value=own.eof)
            yield torch.stack(found, dim=1)

    def use_ring(self, ring: RingOfProcesses) -> None:
        """Share the tokens of each row with other processes; see :class:`~filmstrip.protocols.SharesContext`. Video
        is coded by each."""
        self.ring = ring

    def depth_of(self, name: str) -> int:
        """The embeddings are first, then come the blocks."""
        parts = name.split(".")
        if parts[1] == "blocks":
            return 1 + int(parts[2])
        return 0 if parts[1] in ("embed", "vision_embed", "pos_embed") else 1 + len(self.decoder.blocks)

    def is_fresh(self, name: str) -> bool:
        """The tables of vision tokens and the tokenizer begin anew where a model of text alone is the start."""
        return name.removeprefix("decoder.").startswith(_VISION) or name.startswith("tokenizer.")

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """All weights of a language model of text, beside which vision tokens begin anew.

        Raises:
            UserError: it lacks a weight, or has one more.
        """
        if not isinstance(other, TextModel):
            return None
        state = other.state_dict()
        check_names("the language model of text", state, [n for n in self.state_dict() if not self.is_fresh(n)])
        return state

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights of the language model from those of a LLaMA, by the names in its files.

        Raises:
            UserError: a weight has no place here.
        """
        return {f"decoder.{name}": x for name, x in from_llama(theirs, self.decoder.config).items()}

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The ``config.json`` of the LLaMA that reads and writes text, and its weights by the names in its files;
        vision tokens have no place there.

        Raises:
            UserError: ``transformers`` has no such model.
        """
        state = {name: x for name, x in self.decoder.state_dict().items() if not name.startswith(_VISION)}
        return config_in_hub(self.decoder.config), to_llama(state, self.decoder.config)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights of the language model, vision tokens included, from the flat ``params`` of the authors' code.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        return {f"decoder.{name}": x for name, x in from_published(theirs, self.decoder).items()}


@dataclass(frozen=True, kw_only=True)
class LWMConfig(TextModelConfig, LatentConfig):
    """A language model, the tokenizer whose codes it reads and writes, and the losses."""

    continues_text: ClassVar[bool] = False

    average: Average = "examples"
    vision_vocab_size: Count | None = None
    """Number of rows of the table of vision tokens and of their output layer; none for the codes and two ends."""
    losses: Losses = "halves"
    """Losses of text and of vision tokens: half of each's own mean among its own ids, or one mean among all ids
    (``joint``)."""
    placeholders: tuple[CountOrZero, ...] = ()
    """Ids at the places of videos in text. In training they come from the data, as do the following."""
    begin: tuple[CountOrZero, ...] = ()
    """Tokens of ``<vision>``."""
    end: tuple[CountOrZero, ...] = ()
    """Tokens of ``</vision>``."""
    start: CountOrZero | None = None
    """Token of the start of a text, if there is one."""
    sampling: VisionSampling = field(default_factory=VisionSampling, metadata=FREE)
    """Drawing of images and of the frames of videos."""

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary and the tokens around videos from the data.

        Raises:
            UserError: the tokenizer of texts is not the language model's.
        """
        found = super().bind(info)
        if not isinstance(info, VisionTextInfo):
            return found
        return replace(
            found,
            placeholders=tuple(sorted(i for _, i in info.tokenizer.specials)),
            begin=info.begin,
            end=info.end,
            start=info.tokenizer.start,
        )

    def tokens_of_frame(self) -> tuple[int, int]:
        """Number of tokens of a step of time, with its end, and number of frames that it stands for."""
        with torch.device("meta"):
            tokenizer = self.build_tokenizer()
        each, h, w = tokenizer.patch_size
        return (self.size // h) * (self.size // w) * tokenizer.bottleneck.num_codebooks + 1, each

    def build(self) -> LWM:
        """Build the language model and the tokenizer with fresh weights.

        Raises:
            UserError: the tokenizer has no codes, or sizes do not fit.
        """
        return LWM(self)
