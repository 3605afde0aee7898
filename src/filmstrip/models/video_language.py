"""Language models that see: an encoder's visual tokens, made tokens of a language model, stand among its text."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.models.connectors import Connector
from filmstrip.models.decoder import Decoder
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import EncoderModule, Features, Grid


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
    the numbers of tokens of the visuals, which lie one after another among ``visual_tokens``. The sequence has
    ``L + visual_tokens - K`` tokens, padding included.
    """
    length = is_visual.shape[1]
    number = (is_visual.cumsum(dim=1) - 1).clamp(min=0, max=sizes.shape[1] - 1)
    width = torch.where(is_visual, sizes.gather(1, number), 1)
    end = width.cumsum(dim=1)
    start = end - width
    at = torch.arange(length + visual_tokens - sizes.shape[1], device=is_visual.device).expand(len(is_visual), -1)
    text = torch.searchsorted(end, at.contiguous(), right=True).clamp(max=length - 1)
    first = (sizes.cumsum(dim=1) - sizes).gather(1, number.gather(1, text))
    visual = length + first + at - start.gather(1, text)
    source = torch.where(is_visual.gather(1, text), visual.clamp(max=length + visual_tokens - 1), text)
    last = (text_length - 1).clamp(min=0)[:, None]
    return Places(source, start, torch.where(text_length > 0, end.gather(1, last)[:, 0], 0))


def _with_summary(tokens: Tensor, seen: Features) -> Tensor:
    """Tokens with the summary of each time step in front of its own, where the encoder has one."""
    if seen.summary is None or seen.summary.shape[1] != seen.grid.t:
        return tokens
    steps = tokens.unflatten(1, (seen.grid.t, -1))
    return torch.cat([seen.summary[:, :, None], steps], dim=2).flatten(1, 2)


class VideoLanguageModel(nn.Module):
    """An encoder, a connector and a decoder.

    ``layer`` counts the encoder's layers from the last: -1 is its output. ``placeholders`` are the ids of text at
    which a visual stands. Parts that are not ``trained`` need no gradient, and the encoder none through it.
    """

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

    def encoded(self, video: Tensor) -> tuple[Tensor, Grid]:
        """What the connector reads of ``B T C H W`` video: the encoder's tokens ``B M C``, and their grid."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "encoder" in self.trained):
            seen = self.encoder(video, layers=self.layer != -1)
            tokens = seen.tokens if self.layer == -1 else seen.layers[self.layer]
            if self.connector.with_summary:
                tokens = _with_summary(tokens, seen)
        dtype = next(self.connector.parameters()).dtype
        return tokens if torch.is_autocast_enabled() else tokens.to(dtype), seen.grid

    def sequence(
        self, visual: Tensor, text: Tensor, text_length: Tensor, sizes: Tensor | None = None
    ) -> tuple[Tensor, Places]:
        """Embeddings ``B S D`` of text (``B L`` ids) in which one visual (``B N D``) takes its place.

        ``sizes`` (``B 1``) are the numbers of its tokens where they differ; padding follows them.
        """
        is_visual = torch.isin(text, self.placeholders)
        if sizes is None:
            sizes = torch.full((text.shape[0], 1), visual.shape[1], device=text.device)
        where = places(is_visual, text_length, sizes, visual.shape[1])
        words = self.decoder.embed(text.masked_fill(is_visual, 0))
        both = torch.cat([words, visual.to(words.dtype)], dim=1)
        return both.gather(1, where.source[..., None].expand(-1, -1, both.shape[2])), where

    def logits(self, visual: Tensor, text: Tensor, text_length: Tensor, learnt: Tensor | None = None) -> Tensor:
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

    def options(self, visual: Tensor, is_visual: Tensor, asks: Tensor) -> dict[str, Any]:
        """Further arguments of the decoder for a sequence in which ``is_visual`` (``B N`` bool) marks the tokens
        ``visual`` of what was seen, and the last token of the question is at ``asks`` (``B``); by default none."""
        return {}

    def positions(self, visual: Tensor, is_visual: Tensor) -> Tensor | None:
        """Positions in the decoder of a sequence in which ``is_visual`` (``B N`` bool) marks the tokens of what was
        seen; none, by default, for the order of the sequence."""
        return None

    @torch.no_grad()
    def continued(
        self, visual: Tensor, text: Tensor, text_length: Tensor, uniform: Tensor, sampling: Sampling
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
