"""The next token of text, where it is to be learnt: the objective of language models that see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, Rate, Share, ShareBelowOne
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.conversations import ConversationInfo
from filmstrip.errors import UserError
from filmstrip.models.connectors import ConnectorConfig, MlpConnector
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import adapt
from filmstrip.models.video_language import VideoLanguageModel
from filmstrip.nn.lora import is_adaptation
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.protocols import Batch, Loss, Objective, find_encoder
from filmstrip.randomness import uniform
from filmstrip.settings import FREE

Part = Literal["encoder", "connector", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "connector", "decoder")
Average = Literal["tokens", "examples"]
_IGNORED = -100


def token_losses(logits: Tensor, target: Tensor, learnt: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy ``B N`` of ``B N K`` logits where tokens are ``learnt`` (``B N`` bool), zero elsewhere."""
    wanted = target.masked_fill(~learnt, _IGNORED)
    return F.cross_entropy(
        logits.float().mT, wanted, ignore_index=_IGNORED, reduction="none", label_smoothing=smoothing
    )


def averaged(losses: Tensor, learnt: Tensor, average: Average) -> Tensor:
    """The mean of ``B N`` losses over all learnt tokens, or over each example's and then over examples."""
    if average == "tokens":
        return losses.sum() / learnt.sum().clamp(min=1)
    counts = learnt.sum(dim=1)
    means = losses.sum(dim=1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Low-rank adaptation of the language model (Hu et al. 2022), in place of training its weights."""

    rank: Count = 8
    """Rank of the product that is learnt."""
    alpha: Rate = 16.0
    """Factor of the product, in multiples of one over the rank."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate of the product's input."""
    layers: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the layers that are adapted, by LLaMA's names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
    down_proj."""


@dataclass(frozen=True, kw_only=True)
class VideoLanguageConfig(ObjectiveConfig):
    """An encoder, a connector and a language model, and which of them are trained."""

    has_language: ClassVar[bool] = True

    encoder: ObjectiveConfig
    """Network of the encoder; an ``encoder_run`` replaces it by its own."""
    encoder_run: str | None = None
    """Run folder, or model of the Hub or in its layout, whose encoder is taken when training starts."""
    layer: Annotated[int, Bounds(max=-1)] = -1
    """Layer of the encoder that is read, counted from the last; -1 is its output."""
    connector: ConnectorConfig = field(default_factory=MlpConnector)
    """Connector of visual tokens to the language model."""
    decoder: DecoderConfig
    """Sizes of the language model; a ``decoder_run`` replaces them by its own."""
    decoder_run: str | None = None
    """Run folder, or folder of a language model in the Hub's layout (or ``hf:OWNER/NAME``), whose language model is
    taken when training starts."""
    trains: tuple[Part, ...] = PARTS
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""
    adaptation: Adaptation | None = None
    """Low-rank adaptation of a language model that is not trained otherwise."""
    untrained_parts: bool = field(default=False, metadata=FREE)
    """Whether frozen parts may be untrained where no run is named: to try things out."""
    average: Average = "tokens"
    """What losses are averaged over: all learnt tokens of a batch, or each example's and then examples."""
    label_smoothing: Share = 0.0
    """Probability that the loss spreads evenly over all tokens."""
    sees: bool = True
    """Whether the language model sees visual tokens: without, zeros take their places, for a blind baseline."""
    placeholders: tuple[CountOrZero, ...] = ()
    """Ids at the places of visuals. In training they come from the data."""

    def bind(self, info: DataInfo) -> Self:
        """Take the ids from the data, and the size of the vocabulary for a language model that is new.

        Raises:
            UserError: the tokenizer is not the language model's.
        """
        if not isinstance(info, ConversationInfo):
            return self
        words = info.tokenizer
        decoder = self.decoder
        if self.decoder_run is None:
            decoder = replace(decoder, vocab_size=words.size)
        elif words.size > decoder.vocab_size + len(words.specials):
            raise UserError(
                f"the tokenizer has {words.size} ids and the language model {self.decoder_run} {decoder.vocab_size}: "
                f"give its own (--data.reads.tokenizer {self.decoder_run})"
            )
        return replace(self, decoder=decoder, placeholders=tuple(sorted(i for _, i in words.specials)))

    def for_clip(self, clip: Clip) -> Self:
        """This method for clips of another length and size, unless its encoder comes from elsewhere."""
        return self if self.encoder_run is not None else replace(self, encoder=self.encoder.for_clip(clip))

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder and the language model, where they are not trained."""
        return {
            part: FrozenPart(f"objective.{part}_run") for part in ("encoder", "decoder") if part not in self.trains
        }

    def build(self) -> VideoLanguage:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, the language model is both trained and adapted, or
                nothing is trained.
        """
        return VideoLanguage(self)

    def built_parts(self) -> dict[str, Any]:
        """The parts with fresh weights, as :class:`VideoLanguageModel` takes them.

        Raises:
            UserError: as of :meth:`build`.
        """
        encoder = find_encoder(self.encoder.build())
        if encoder is None:
            raise UserError(f"{type(self.encoder).__name__} has no encoder that could see for a language model")
        if self.adaptation is not None and "decoder" in self.trains:
            raise UserError("the language model is either trained or adapted: leave decoder out of objective.trains")
        if not self.trains and self.adaptation is None:
            raise UserError(f"nothing is trained: name one of {', '.join(PARTS)} in objective.trains")
        decoder = Decoder(self.decoder)
        return {
            "encoder": encoder,
            "connector": self.connector.build(encoder.width, self.decoder.width),
            "decoder": decoder,
            "layer": self.layer,
            "placeholders": self.placeholders or (0,),
            "trained": self.trains,
        }


class VideoLanguage(VideoLanguageModel, Objective):
    """Learns the next token of conversations about video, of what the assistant says.

    It is one of :class:`~filmstrip.protocols.Answers`.
    """

    requires = ("video", "text", "text_length", "learnt")
    starts_whole = True

    def __init__(self, config: VideoLanguageConfig) -> None:
        super().__init__(**config.built_parts())
        self.average = config.average
        self.label_smoothing = config.label_smoothing
        self.sees = config.sees
        if config.adaptation is not None:
            how = config.adaptation
            adapt(self.decoder, how.layers, rank=how.rank, alpha=how.alpha, dropout=how.dropout)
            self.train(self.training)

    def is_kept_elsewhere(self, name: str) -> bool:
        """Whether a parameter or buffer belongs to a part that is kept elsewhere; an adaptation is the run's own."""
        return super().is_kept_elsewhere(name) and not is_adaptation(name)

    def is_fresh(self, name: str) -> bool:
        """Whether a parameter begins anew where the run that this one starts from does not have it."""
        return is_adaptation(name)

    def rate_of(self, name: str) -> float:
        """The factor of a parameter's learning rate: that of the language model's width (muP)."""
        own = name.removeprefix("decoder.")
        return self.decoder.rate_of(own) if own != name and not is_adaptation(name) else 1.0

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per learnt token; logs the share of them that the model puts first."""
        learnt, target = batch["learnt"][:, 1:], batch["text"][:, 1:]
        visual = self.in_text(self.seen(batch), batch)
        logits = self.logits(visual, batch["text"], batch["text_length"], batch["learnt"])
        losses = token_losses(logits, target, learnt, smoothing=self.label_smoothing)
        right = ((logits.detach().argmax(dim=-1) == target) & learnt).sum() / learnt.sum().clamp(min=1)
        return Loss(averaged(losses, learnt, self.average), {"top1": right})

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B T C H W`` video; zeros for a model that is blind."""
        visual = super().see(video)
        return visual if self.sees else visual * 0

    def seen(self, batch: Batch) -> Tensor:
        """What is seen of a batch, by default of its video; frames that differ in size need a method that reads
        them."""
        return self.see(batch["video"])

    def in_text(self, visual: Tensor, batch: Batch) -> Tensor:
        """Tokens ``B N D`` at the place of what was seen in the texts of a batch or a prompt; by default what was
        seen."""
        return visual

    @torch.no_grad()
    def score(self, visual: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-likelihood ``B`` of the learnt tokens of conversations about what was seen, and their number."""
        logits = self.logits(self.in_text(visual, batch), batch["text"], batch["text_length"], batch["learnt"])
        learnt = batch["learnt"][:, 1:]
        return -token_losses(logits, batch["text"][:, 1:], learnt).sum(dim=1), learnt.sum(dim=1)

    def answer(
        self, visual: Tensor, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Sampling | None = None
    ) -> Iterator[Tensor]:
        """At most ``count`` ids ``B`` of an answer, one position at a time; row ``i`` draws from ``seed + i``."""
        text = prompt["text"]
        seeds = torch.arange(text.shape[0], device=text.device) + seed
        drawn = uniform(seeds, count, "language.answer")
        visual = self.in_text(visual, prompt)
        return self.continued(visual, text, prompt["text_length"], drawn, sampling or Sampling(temperature=0.0))
