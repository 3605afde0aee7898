"""The next token of text alone: language models of documents and of conversations without video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Rate
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.conversations import ConversationInfo
from filmstrip.data.kinds.documents import TextInfo
from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.gpt2_layout import from_gpt2
from filmstrip.models.llama_layout import config_in_hub, from_llama, to_llama
from filmstrip.models.video_language import Packs
from filmstrip.nn.masks import causal, document
from filmstrip.nn.ring_attention import own_of_padded
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.language import Average, loss_weights, of_ring
from filmstrip.protocols import Batch, Loss, Objective, RingOfProcesses
from filmstrip.randomness import uniform
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class TextModelConfig(ObjectiveConfig):
    """A language model of text."""

    continues_text: ClassVar[bool] = True
    has_language: ClassVar[bool] = True

    decoder: DecoderConfig
    """Sizes of the language model; a model in the Hub's layout, or a run, that ``init`` names decides all of them but
    the base of rotary embeddings."""
    average: Average = "tokens"
    """What losses are averaged over: all learnt tokens of a batch; or each example's, and then examples; or those of
    each row, and then rows that examples share."""
    begins_at_base: Rate | None = None
    """Base of rotary embeddings (``rope_theta``) of the model that training starts from; none for any."""
    keeps_sizes: bool = False
    """Whether the run's ``init`` has decided the sizes, so that the data say nothing of the vocabulary; the command
    line finds out."""

    def tokens_of_frame(self) -> tuple[int, int] | None:
        """Number of tokens that a step of time takes, and number of frames that it stands for; none, by default, for
        a model that reads text alone."""
        return None

    def bind(self, info: DataInfo) -> Self:
        """Take the size of the vocabulary from the data, for a language model that is new.

        Raises:
            UserError: the tokenizer is not the language model's.
        """
        if not isinstance(info, (TextInfo, ConversationInfo)):
            return self
        words, own = info.tokenizer, self.decoder
        if not self.keeps_sizes:
            return replace(self, decoder=replace(own, vocab_size=words.size))
        if words.size > own.vocab_size + len(words.specials):
            raise UserError(
                f"the tokenizer has {words.size} ids and the language model that this run starts from "
                f"{own.vocab_size}: give its own (--data.reads.tokenizer FOLDER)"
            )
        return self

    def of_init(self, decoder: DecoderConfig, source: str) -> Self:
        """This method with the sizes of the language model that it starts from, and its own rotary base.

        Raises:
            UserError: that model's base is another one than this method begins at.
        """
        found, expected = decoder.rope_base, self.begins_at_base
        if expected is not None and found != expected:
            raise UserError(
                f"{source} has a rotary base (rope_theta) of {found:,.0f}, and this stage goes on from a model with "
                f"{expected:,.0f} to {self.decoder.rope_base:,.0f}: start from the stage before it (--init), or "
                "allow any base (--objective.begins-at-base None)"
            )
        return replace(self, decoder=replace(decoder, rope_base=self.decoder.rope_base), keeps_sizes=True)

    def build(self) -> TextModel:
        """Build the model with fresh weights."""
        return TextModel(self)


class Rows(NamedTuple):
    """Tokens as they lie in the rows of the language model, each ``R N``; this process's, if several share them."""

    tokens: Tensor
    target: Tensor
    """The token after each."""
    weight: Tensor
    """Weight of the loss of that."""
    document: Tensor | None
    """Number of the example of each, from 1, and 0 for none; None where a row is one."""
    positions: Tensor | None
    """Positions that begin in each example; None where a row is one."""

    def read(self, decoder: Decoder, ring: RingOfProcesses | None) -> Tensor:
        """The hidden states ``R N D`` of causal attention, within examples and along the ring."""
        mask = causal() if self.document is None else causal() & document(self.document)
        along = mask if ring is None else mask.along(ring)
        return decoder(self.tokens, mask=along, positions=self.positions).hidden


class TextModel(Objective):
    """Learns the next token of text.

    It is one of :class:`~filmstrip.protocols.TextWriter`.
    """

    requires = ("text", "learnt")
    takes_packed = True
    starts_whole = True
    ring: RingOfProcesses | None = None
    """Processes that share the tokens of each row in training; none if each row is one process's."""

    def __init__(self, config: TextModelConfig) -> None:
        super().__init__()
        self.config = config
        self.average = config.average
        self.decoder = Decoder(config.decoder)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a language model, by the names in its files.

        Raises:
            UserError: a weight has no place here.
        """
        config = self.decoder.config
        found = (from_gpt2 if config.positions == "learned" else from_llama)(theirs, config)
        return {f"decoder.{name}": tensor for name, tensor in found.items()}

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The ``config.json`` of the same model of ``transformers``, and its weights by the names in its files.

        Raises:
            UserError: ``transformers`` has no such model.
        """
        return config_in_hub(self.decoder.config), to_llama(self.decoder.state_dict(), self.decoder.config)

    def depth_of(self, name: str) -> int:
        """The embedding is first, then come the blocks."""
        parts = name.split(".")
        if parts[1] == "blocks":
            return 1 + int(parts[2])
        return 0 if parts[1] in ("embed", "pos_embed") else 1 + len(self.decoder.blocks)

    def rate_of(self, name: str) -> float:
        """The factor of a parameter's learning rate: that of the language model's width (muP)."""
        return self.decoder.rate_of(name.removeprefix("decoder."))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per learnt token; logs the share of them that the model puts first, and that of shared rows' places
        that are no padding."""
        learnt, numbers = batch["learnt"][:, 1:], batch.get("document")
        ring = self.ring if self.training else None
        weights = loss_weights(learnt, self.average, batch.get("step_means"), numbers)
        rows = laid_out(batch["text"], weights, numbers, ring)
        losses, best = self.decoder.losses(rows.read(self.decoder, ring), rows.target)
        right = ((best == rows.target) & (rows.weight > 0)).sum()
        loss, right = of_ring((losses * rows.weight).sum(), right, ring)
        metrics = {"top1": right / learnt.sum().clamp(min=1)}
        if numbers is not None:
            metrics["fill"] = (numbers > 0).float().mean()
        return Loss(loss, metrics)

    def use_ring(self, ring: RingOfProcesses) -> None:
        """Share the tokens of each row with other processes; see :class:`~filmstrip.protocols.SharesContext`."""
        self.ring = ring

    @torch.no_grad()
    def text_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :class:`~filmstrip.protocols.TextWriter`."""
        losses, _ = self.decoder.losses(self.decoder(batch["text"][:, :-1]).hidden, batch["text"][:, 1:])
        learnt = batch["learnt"][:, 1:]
        return losses * learnt, learnt

    def write_on(
        self, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Sampling | None = None
    ) -> Iterator[Tensor]:
        """See :class:`~filmstrip.protocols.TextWriter`."""
        text = prompt["text"]
        seeds = torch.arange(len(text), device=text.device) + seed
        drawn = uniform(seeds, count, "text.write_on")
        # All rows end together: padding stands first.
        padding = text.shape[1] - prompt["text_length"]
        at = torch.arange(text.shape[1], device=text.device)
        moved = text.gather(1, (at - padding[:, None]) % text.shape[1])
        several = {"padding": padding} if len(text) > 1 else {}
        yield from self.decoder.decode(moved, drawn, sampling or Sampling(temperature=0.0), **several)


def laid_out(text: Tensor, weights: Tensor, numbers: Tensor | None, ring: RingOfProcesses | None) -> Rows:
    """Texts ``B L`` in rows of the language model, whose losses have ``weights`` (``B L-1``); they are the rows
    themselves, or share rows in which ``numbers`` (``R N``) says where each lies. Along a ``ring`` each row is cut
    among its processes, as one of an example each where ``numbers`` does not say otherwise."""
    if numbers is None:
        rows = Rows(text[:, :-1], text[:, 1:], weights, None, None)
    else:
        packs = Packs.of(numbers, *text.shape)
        target, weight = F.pad(text[:, 1:], (0, 1)), F.pad(weights, (0, 1))
        tokens, target, weight = (each.flatten()[packs.index] for each in (text, target, weight))
        rows = Rows(tokens, target, weight.masked_fill(numbers == 0, 0.0), numbers, packs.offset)
    if ring is None:
        return rows
    at = torch.arange(rows.tokens.shape[1], device=text.device).expand_as(rows.tokens)
    document = torch.ones_like(rows.tokens) if rows.document is None else rows.document
    whole = (rows.tokens, rows.target, rows.weight, document, at if rows.positions is None else rows.positions)
    return Rows(*(own_of_padded(each, ring) for each in whole))
