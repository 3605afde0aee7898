"""Language models that see: an encoder's visual tokens, made tokens of a language model, stand among its text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.connectors import Connector
from filmstrip.models.decoder import Decoder
from filmstrip.nn.masks import causal
from filmstrip.nn.masks import document as within_document
from filmstrip.nn.ring_attention import all_tokens, own_tokens
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import EncoderModule, Features, Grid, RingOfProcesses


class Places(NamedTuple):
    """Where text and visual tokens stand in the sequence of the language model."""

    source: Tensor
    """For every token of the sequence its index among text and visual tokens one after another, ``B S``."""
    start: Tensor
    """For every id of the text the place in the sequence of its (first) token, ``B L``."""
    length: Tensor
    """Number of tokens of each row that are no padding, ``B``."""


def places(is_visual: Tensor, text_length: Tensor, sizes: Tensor, visual_tokens: int) -> Places:
    """The order of a sequence in which every visual stands at its place in the text.

    ``is_visual`` (``B L`` bool) marks the places, of which the first visuals take the first; ``sizes`` (``B K``) are
    the numbers of tokens of the visuals, which lie one after another among ``visual_tokens``; rows with fewer visuals
    end with zeros. The sequence has ``L + visual_tokens - 1`` tokens, padding included.
    """
    length = is_visual.shape[1]
    number = (is_visual.cumsum(dim=1) - 1).clamp(min=0, max=sizes.shape[1] - 1)
    width = torch.where(is_visual, sizes.gather(1, number), 1)
    end = width.cumsum(dim=1)
    start = end - width
    at = torch.arange(length + visual_tokens - 1, device=is_visual.device).expand(len(is_visual), -1)
    text = torch.searchsorted(end, at.contiguous(), right=True).clamp(max=length - 1)
    first = (sizes.cumsum(dim=1) - sizes).gather(1, number.gather(1, text))
    visual = length + first + at - start.gather(1, text)
    source = torch.where(is_visual.gather(1, text), visual.clamp(max=length + visual_tokens - 1), text)
    last = (text_length - 1).clamp(min=0)[:, None]
    return Places(source, start, torch.where(text_length > 0, end.gather(1, last)[:, 0], 0))


class Packs(NamedTuple):
    """Where the tokens of a batch's examples lie in rows of one length that several examples share."""

    index: Tensor
    """For each place of the rows its token among the ``B S`` of all examples, ``R N``; any where there is none."""
    offset: Tensor
    """Number of the example's places before each one, ``R N``."""
    start: Tensor
    """First place of each example among all places, row by row, ``B``."""

    @classmethod
    def of(cls, document: Tensor, examples: int, length: int) -> Packs:
        """Those of so many examples with ``length`` tokens each, padding included.

        ``document`` (``R N``) has the number of the example, from 1, at each place of the rows, and 0 for none. The
        places of an example are adjacent.
        """
        owner = document.flatten()
        at = torch.arange(owner.numel(), device=document.device)
        start = torch.full((examples + 1,), owner.numel() - 1, device=document.device)
        start = start.scatter_reduce(0, owner, at, "amin")
        offset = (at - start[owner]).view_as(document)
        index = (document - 1).clamp(min=0) * length + offset.clamp(max=length - 1)
        return cls(index, offset, start[1:])


@dataclass(frozen=True)
class Visuals:
    """What is seen of several images and videos a row."""

    tokens: Tensor
    """Tokens of the language model, those of a row's visuals one after another, then padding, ``B N D``."""
    grids: Tensor
    """Time steps, rows and columns of the tokens of each visual, ``B K 3`` int64; zeros for none."""

    @property
    def sizes(self) -> Tensor:
        """Number of tokens of each visual, ``B K``."""
        return self.grids.prod(dim=-1)

    @property
    def shape(self) -> torch.Size:
        """That of the tokens."""
        return self.tokens.shape

    @property
    def device(self) -> torch.device:
        """That of the tokens."""
        return self.tokens.device

    def __len__(self) -> int:
        return len(self.tokens)

    def __mul__(self, factor: float) -> Visuals:
        return Visuals(self.tokens * factor, self.grids)

    def __getitem__(self, rows: slice) -> Visuals:
        return Visuals(self.tokens[rows], self.grids[rows])

    def expand(self, count: int, *rest: int) -> Visuals:
        """A single row, as ``count`` ones."""
        return Visuals(self.tokens.expand(count, -1, -1), self.grids.expand(count, -1, -1))

    def parts(self, row: int = 0) -> list[Tensor]:
        """The tokens ``N D`` of each visual of a row."""
        sizes = self.sizes[row].tolist()
        return list(self.tokens[row, : sum(sizes)].split([size for size in sizes if size]))

    @classmethod
    def joined(cls, seen: Sequence[Seen], *, apart: bool) -> Visuals:
        """One row of what was seen of several images and videos, a row each: a visual of each, or of each of their
        frames where these are ``apart``."""
        parts = [each.parts() if isinstance(each, Visuals) else [each[0]] for each in seen]
        return cls.of_rows([[one for own in parts for one in (own if apart else [_together(own)])]])

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Tensor]]) -> Visuals:
        """Visuals of rows, each the tokens ``N D`` or ``T H W D`` of one."""
        most = max(1, *(len(row) for row in rows))
        shapes = [[(1, 1, *each.shape[:-1])[-3:] for each in row] for row in rows]
        grids = torch.tensor([[*row, *[(0, 0, 0)] * (most - len(row))] for row in shapes])
        flat = [torch.cat([each.flatten(0, -2) for each in row]) for row in rows]
        return cls(nn.utils.rnn.pad_sequence(flat, batch_first=True), grids.to(flat[0].device))


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Tokens of parts of one visual; of a single one as they are."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


Seen = Tensor | Visuals
"""What is seen of one visual a row, tokens ``B N D``, or of several."""


def _with_summary(tokens: Tensor, seen: Features) -> Tensor:
    """Tokens with the summary of each time step in front of its own, where the encoder has one."""
    if seen.summary is None or seen.summary.shape[1] != seen.grid.t:
        return tokens
    steps = tokens.unflatten(1, (seen.grid.t, -1))
    return torch.cat([seen.summary[:, :, None], steps], dim=2).flatten(1, 2)


def _with_class_tokens(tokens: Tensor, seen: Features, count: int) -> Tensor:
    """Tokens with the class tokens of the last layers in front, each its mean over time.

    Raises:
        UserError: the encoder has fewer.
    """
    if len(seen.summaries) < count:
        raise UserError(
            f"the connector reads class tokens of the last {count} layers, and the encoder has "
            f"{len(seen.summaries) or 'no'} such: name one with a class token, such as CLIP's, or fewer layers "
            "(--objective.connector.class-layers)"
        )
    return torch.cat([torch.stack([each.mean(dim=1) for each in seen.summaries[-count:]], dim=1), tokens], dim=1)


class VideoLanguageModel(nn.Module):
    """An encoder, a connector and a decoder.

    ``layer`` counts the encoder's layers from the last: -1 is its output. ``placeholders`` are the ids of text at
    which a visual stands. Parts that are not ``trained`` need no gradient, and the encoder none through it.
    """

    placeholders: Tensor
    ring: RingOfProcesses | None = None
    """Processes that share the tokens of each row in training, and what is encoded; none if each has its own rows."""

    def __init__(
        self,
        encoder: EncoderModule,
        connector: Connector,
        decoder: Decoder,
        *,
        layer: int,
        placeholders: Collection[int],
        trained: Collection[str],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.connector = connector
        self.decoder = decoder
        self.layer = layer
        self.trained = tuple(trained)
        self.register_buffer("placeholders", torch.tensor(sorted(placeholders)), persistent=False)
        for name in ("encoder", "connector", "decoder"):
            if name not in trained:
                self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> VideoLanguageModel:
        """As any module, but parts in which nothing is trained stay in evaluation."""
        super().train(mode)
        for part in (self.encoder, self.connector, self.decoder):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B T C H W`` video."""
        return self.connector(*self.encoded(video))

    def see_among(self, video: Tensor) -> Tensor:
        """As :meth:`see`, of an image or a video that is one of several; by default the same."""
        return self.see(video)

    def see_each(self, video: Tensor, frames: Tensor, sizes: Tensor | None = None) -> Visuals:
        """What is seen of several images and videos a row.

        ``video`` (``B F C H W``) has their frames one after another, ``frames`` (``B K``) their numbers; zeros for
        none. Frames that differ in size lie at the top left, and ``sizes`` (``B K 2``) are their heights and widths.
        """
        starts = frames.cumsum(dim=1) - frames
        alike: dict[tuple[int, bool, tuple[int, ...]], list[tuple[int, int]]] = {}
        for row, counts in enumerate(frames.tolist()):
            alone = sum(count > 0 for count in counts) == 1
            for number, count in enumerate(counts):
                size = tuple(video.shape[3:] if sizes is None else sizes[row, number].tolist())
                if count:
                    alike.setdefault((count, alone, size), []).append((row, number))
        found: dict[tuple[int, int], Tensor] = {}
        for (count, alone, (height, width)), which in alike.items():
            rows, numbers = torch.tensor(which, device=video.device).unbind(dim=1)
            at = starts[rows, numbers][:, None] + torch.arange(count, device=video.device)
            clips = video[rows[:, None], at][..., :height, :width]
            found |= dict(zip(which, self.see(clips) if alone else self.see_among(clips)))
        order = range(frames.shape[1])
        return Visuals.of_rows([[found[i, k] for k in order if (i, k) in found] for i in range(len(video))])

    def encoded(self, video: Tensor) -> tuple[Tensor, Grid]:
        """What the connector reads of ``B T C H W`` video: the encoder's tokens ``B M C``, and their grid.

        Processes that share the tokens of rows share the frames, too, if the encoder sees each by itself
        (``frames_apart``) and nothing is read but their tokens, or else the clips; all of them get the tokens of all.
        """
        if self.ring is None or not self.training:
            return self._encoded(video)
        steps = 1
        if getattr(self.encoder, "frames_apart", False) and not self.connector.with_summary:
            steps = max(1, video.shape[1] // self.encoder.patch_size[0])
        clips = video.unflatten(1, (steps, -1)).flatten(0, 1)
        missing = -len(clips) % self.ring.size
        filled = torch.cat([clips, clips[:1].expand(missing, *clips.shape[1:])]) if missing else clips
        tokens, grid = self._encoded(own_tokens(filled, self.ring, dim=0))
        tokens = all_tokens(tokens, self.ring, dim=0)[: len(clips)]
        return tokens.unflatten(0, (-1, steps)).flatten(1, 2), grid._replace(t=grid.t * steps)

    def _encoded(self, video: Tensor) -> tuple[Tensor, Grid]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and "encoder" in self.trained):
            classes = self.connector.class_layers
            seen = self.encoder(video, layers=self.layer != -1 or classes > 0)
            tokens = seen.tokens if self.layer == -1 else seen.layers[self.layer]
            if self.connector.with_summary:
                tokens = _with_summary(tokens, seen)
            if classes:
                tokens = _with_class_tokens(tokens, seen, classes)
        dtype = next(self.connector.parameters()).dtype
        return tokens if torch.is_autocast_enabled() else tokens.to(dtype), seen.grid

    def sequence(self, visual: Seen, text: Tensor, text_length: Tensor) -> tuple[Tensor, Places]:
        """Embeddings ``B S D`` of text (``B L`` ids) in which visuals (``B N D``) take their places."""
        is_visual = torch.isin(text, self.placeholders)
        if isinstance(visual, Visuals):
            sizes, tokens = visual.sizes, visual.tokens
        else:
            sizes, tokens = torch.full((text.shape[0], 1), visual.shape[1], device=text.device), visual
        where = places(is_visual, text_length, sizes, tokens.shape[1])
        words = self.decoder.embed(text.masked_fill(is_visual, 0))
        both = torch.cat([words, tokens.to(words.dtype)], dim=1)
        return both.gather(1, where.source[..., None].expand(-1, -1, both.shape[2])), where

    def logits(self, visual: Seen, text: Tensor, text_length: Tensor, learnt: Tensor | None = None) -> Tensor:
        """Logits ``B L-1 vocab_size`` of every id of the text but the first, each from all that stands before it.

        ``learnt`` (``B L`` bool) marks answers, the first of which ends the question.
        """
        x, where = self.sequence(visual, text, text_length)
        before = where.start[:, 1:] - 1
        is_visual = where.source >= text.shape[1]
        asks = where.length - 1
        if learnt is not None:
            asks = before.gather(1, learnt[:, 1:].int().argmax(dim=1, keepdim=True))[:, 0]
        options = self.options(visual, is_visual, asks)
        hidden = self.decoder(x, positions=self.positions(visual, is_visual), **options).hidden
        return self.decoder.logits(hidden.gather(1, before[..., None].expand(-1, -1, x.shape[2])))

    def packed_losses(
        self,
        visual: Seen,
        text: Tensor,
        text_length: Tensor,
        weight: Tensor,
        document: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        ring: RingOfProcesses | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the losses of all ids of the text but the first, and how many of them are put first.

        ``weight`` (``B L-1``) is that of each loss; those of zero are not counted. With ``document``, numbers of
        examples as in :class:`Packs`, examples share rows in the decoder, which changes nothing but what it costs.
        Along a ``ring`` its processes share the tokens of each row, and this one returns its part of both sums.
        """
        x, where = self.sequence(visual, text, text_length)
        positions = self.positions(visual, where.source >= text.shape[1])
        if document is None:
            at = torch.arange(x.shape[1], device=x.device)
            numbers = torch.arange(1, len(x) + 1, device=x.device)
            document = numbers[:, None] * (at < where.length[:, None])
        if ring is not None:
            document = F.pad(document, (0, -document.shape[1] % ring.size))
        packs = Packs.of(document, *x.shape[:2])
        count = document.numel()
        predicts = (packs.start[:, None] + where.start[:, 1:] - 1).masked_fill(weight == 0, count).flatten()

        def own(rows: Tensor) -> Tensor:
            return rows if ring is None else own_tokens(rows, ring)

        def at_places(values: Tensor) -> Tensor:
            rows = values.new_zeros(count + 1).scatter(0, predicts, values.flatten())
            return own(rows[:count].view_as(document))

        index, mask = own(packs.index), causal() & within_document(own(document))
        hidden = self.decoder(
            x.flatten(0, 1)[index],
            mask=mask if ring is None else mask.along(ring),
            positions=own(packs.offset) if positions is None else positions.flatten(0, 1)[index],
        ).hidden
        target = text[:, 1:]
        if ring is None and target.numel() <= count:  # what is said takes less room than rows do, padding included
            hidden = hidden.flatten(0, 1)[predicts.view_as(target).clamp(max=count - 1)]
        else:
            target, weight = at_places(target), at_places(weight)
        losses, best = self.decoder.losses(hidden, target, smoothing=smoothing)
        return (losses * weight).sum(), ((best == target) & (weight > 0)).sum()

    def options(self, visual: Seen, is_visual: Tensor, asks: Tensor) -> dict[str, Any]:
        """Further arguments of the decoder for a sequence in which ``is_visual`` (``B N`` bool) marks the tokens
        ``visual`` of what was seen, and the last token of the question is at ``asks`` (``B``); by default none."""
        return {}

    def positions(self, visual: Seen, is_visual: Tensor) -> Tensor | None:
        """Positions in the decoder of a sequence in which ``is_visual`` (``B N`` bool) marks the tokens of what was
        seen; none, by default, for the order of the sequence."""
        return None

    @torch.no_grad()
    def continued(
        self, visual: Seen, text: Tensor, text_length: Tensor, uniform: Tensor, sampling: Sampling
    ) -> Iterator[Tensor]:
        """The ids ``B`` after a prompt, one position at a time, as many as ``uniform`` (``B N``) has columns."""
        x, where = self.sequence(visual, text, text_length)
        # All rows end together: padding stands first.
        padding = x.shape[1] - where.length
        at = torch.arange(x.shape[1], device=x.device)
        moved = (at - padding[:, None]) % x.shape[1]
        x = x.gather(1, moved[..., None].expand(-1, -1, x.shape[2]))
        count = uniform.shape[1]
        positions = self.positions(visual, F.pad(where.source >= text.shape[1], (0, count)))
        if positions is not None:
            after = torch.arange(x.shape[1] + count, device=x.device)
            index = (after - padding[:, None]).clamp(min=0)[..., None].expand(-1, -1, positions.shape[2])
            positions = positions.gather(1, index)
        is_visual = (where.source >= text.shape[1]).gather(1, moved)
        asks = torch.full_like(padding, x.shape[1] - 1)
        options = self.options(visual, is_visual, asks)
        yield from self.decoder.decode(x, uniform, sampling, padding=padding, positions=positions, of_prompt=options)
