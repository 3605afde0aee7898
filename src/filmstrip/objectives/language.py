"""The next token of text, where it is to be learnt: the objective of language models that see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Bounds, CountOrZero, Share
from filmstrip.data.config import Clip, DataInfo, NativeSize
from filmstrip.data.kinds.conversations import ConversationInfo
from filmstrip.errors import UserError
from filmstrip.models.connectors import CONNECTORS, ConnectorConfig, MlpConnector
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import adapt, to_peft
from filmstrip.models.video_language import Seen, VideoLanguageModel
from filmstrip.nn.lora import is_adaptation
from filmstrip.nn.patches import NativeFrames
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import FrozenPart, LowRank, ObjectiveConfig
from filmstrip.protocols import Batch, Grid, Loss, Objective, RingOfProcesses, find_encoder
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.text.tokenizers import VIDEO
from filmstrip.weights.keymap import Weights

Part = Literal["encoder", "connector", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "connector", "decoder")
Average = Literal["tokens", "examples", "rows"]
_IGNORED = -100


def token_losses(logits: Tensor, target: Tensor, learnt: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy ``B N`` of ``B N K`` logits where tokens are ``learnt`` (``B N`` bool), zero elsewhere."""
    wanted = target.masked_fill(~learnt, _IGNORED)
    # Tokens in one row: over classes along any other axis than the last a CPU takes three times as long.
    losses = F.cross_entropy(
        logits.float().flatten(0, 1),
        wanted.flatten(),
        ignore_index=_IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    )
    return losses.view_as(target)


def loss_weights(
    learnt: Tensor, average: Average, step_means: Tensor | None = None, document: Tensor | None = None
) -> Tensor:
    """What the losses of ``B N`` tokens are multiplied by for their mean over all learnt ones, or over each example's
    and then over examples, or over each row's and then over rows.

    Batches of a step may differ in the numbers of tokens and examples. ``step_means`` (``2``) are then those of
    examples and of learnt tokens of a batch, the means over the step, by which losses are divided instead: the mean
    over the batches is that over all examples or tokens of the step. All have as many rows. ``document`` (``R M``)
    says which examples, from 1, share a row; without it each has one.
    """
    if average == "tokens":
        return learnt / (learnt.sum().clamp(min=1) if step_means is None else step_means[1])
    counts = learnt.sum(dim=1, keepdim=True)
    if average == "rows" and document is not None:
        rows = torch.arange(len(document), device=document.device)[:, None].expand_as(document)
        row = document.new_zeros(len(learnt) + 1).scatter_(0, document.flatten(), rows.flatten())[1:]
        counts = counts.new_zeros(len(document), 1).index_add_(0, row, counts)
        return learnt / counts.clamp(min=1)[row] / (counts > 0).sum().clamp(min=1)
    examples = (counts > 0).sum().clamp(min=1) if step_means is None else step_means[0]
    return learnt / counts.clamp(min=1) / examples


def averaged(losses: Tensor, learnt: Tensor, average: Average, step_means: Tensor | None = None) -> Tensor:
    """The mean of ``B N`` losses, by :func:`loss_weights`."""
    return (losses * loss_weights(learnt, average, step_means)).sum()


def of_ring(loss: Tensor, right: Tensor, ring: RingOfProcesses | None) -> tuple[Tensor, Tensor]:
    """The loss of the tokens of all processes of a ring, and how many of them are put first, from this one's part of
    both; its gradient is that part's, in a mean over processes."""
    if ring is None:
        return loss, right
    whole = ring.sum(torch.stack([loss, right.to(loss.dtype)]))
    part = loss * ring.size  # processes average their gradients
    return part + (whole[0] - part).detach(), whole[1]


@dataclass(frozen=True, kw_only=True)
class Adaptation(LowRank):
    """Low-rank adaptation of the language model (Hu et al. 2022), in place of training its weights."""

    layers: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the layers that are adapted, by LLaMA's names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
    down_proj."""


class Learnt(NamedTuple):
    """What is learnt of the language model."""

    adaptation: Adaptation | None = None
    weights: bool = False


ADAPTATIONS = {"lora": Learnt(Adaptation()), "full": Learnt(weights=True), "none": Learnt()}
"""What can be learnt of the language model, by name: an adaptation of low rank, all of its weights, or nothing."""


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
    """What losses are averaged over: all learnt tokens of a batch; or each example's, and then examples; or those of
    each row, and then rows that examples share."""
    label_smoothing: Share = 0.0
    """Probability that the loss spreads evenly over all tokens."""
    sees: bool = True
    """Whether the language model sees visual tokens: without, zeros take their places, for a blind baseline."""
    placeholders: tuple[CountOrZero, ...] = ()
    """Ids at the places of visuals. In training they come from the data."""
    published: bool = False
    """Whether the run's ``init`` is a published model in the Hub's layout, in which parts that are not trained are
    left, but for an encoder that it lacks (``encoder_run``); the command line finds out."""

    def adapted(self, learnt: Learnt) -> Self:
        """This method with one of :data:`ADAPTATIONS`; an adaptation that it has stays as it is."""
        others = tuple(part for part in self.trains if part != "decoder")
        adaptation = learnt.adaptation and (self.adaptation or learnt.adaptation)
        return replace(self, trains=(*others, "decoder") if learnt.weights else others, adaptation=adaptation)

    def with_connector(self, connector: ConnectorConfig) -> Self:
        """This method with another connector.

        Raises:
            UserError: it has a connector of its own.
        """
        if type(self.connector) not in CONNECTORS.values():
            raise UserError(f"{type(self).__name__} has a connector of its own, {type(self.connector).__name__}")
        return replace(self, connector=connector)

    any_size: ClassVar[bool] = False
    """Whether frames of any size are seen, whatever the encoder's."""
    hub_types: ClassVar[tuple[str, ...]] = ()
    """Kinds of published models, by their ``model_type``, that are this method."""

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """This method with the sizes of a published model, by its ``config.json`` and what it says of pixels.

        Raises:
            UserError: it has a part that this method does not have.
        """
        raise TypeError(f"{type(self).__name__} does not define as_published(config, preprocessing, source)")

    def frame_sizes(self, native: NativeSize) -> NativeSize:
        """The sizes at which frames of their own shape enter this network; by default those given."""
        return native

    def bind(self, info: DataInfo) -> Self:
        """Take the ids from the data, and the size of the vocabulary for a language model that is new.

        Raises:
            UserError: the tokenizer is not the language model's.
        """
        if not isinstance(info, ConversationInfo):
            return self
        words = info.tokenizer
        decoder = self.decoder
        if self.decoder_run is None and not self.published:
            decoder = replace(decoder, vocab_size=words.size)
        elif words.size > decoder.vocab_size + len(words.specials):
            which = self.decoder_run or "that this run starts from"
            raise UserError(
                f"the tokenizer has {words.size} ids and the language model {which} {decoder.vocab_size}: "
                f"give its own (--data.reads.tokenizer {self.decoder_run or 'FOLDER'})"
            )
        return replace(self, decoder=decoder, placeholders=tuple(sorted(i for _, i in words.specials)))

    def for_clip(self, clip: Clip) -> Self:
        """This method for clips of another length and size, unless its encoder comes from elsewhere."""
        return self if self.encoder_run is not None else replace(self, encoder=self.encoder.for_clip(clip))

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder and the language model, where they are not trained; of a published model its connector, too.

        A published model may have no encoder, which then has a source of its own.
        """
        if self.published:
            apart = {"encoder": "objective.encoder_run"} if self.encoder_run is not None else {}
            return {part: FrozenPart(apart.get(part, "init")) for part in PARTS if part not in self.trains}
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
    takes_packed = True
    starts_whole = True
    blocks_in_transformers: ClassVar[str] = "model.language_model.layers"
    """Where the language model's blocks are in ``transformers``' model."""
    told_by_data: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Sizes in parts of a published ``config.json`` that the data decide here."""
    sees_several: ClassVar[bool] = True
    """Whether a conversation may be about several images and videos."""
    frames_apart: ClassVar[bool] = False
    """Whether what is seen of a video is a visual a frame, so that the frames' times may stand among them."""
    one_frame_in_transformers: ClassVar[bool] = False
    """Whether ``transformers``' model sees one image alone."""

    def __init__(self, config: VideoLanguageConfig) -> None:
        super().__init__(**config.built_parts())
        self.config = config
        self.average = config.average
        self.label_smoothing = config.label_smoothing
        self.sees = config.sees
        if config.adaptation is not None:
            how = config.adaptation
            adapt(self.decoder, how.layers, rank=how.rank, alpha=how.alpha, dropout=how.dropout)
            self.train(self.training)

    def num_tokens(self, clip: Clip) -> int:
        """Number of tokens of the language model that a clip takes."""
        return self.connector.num_tokens(self.grid_of(clip.num_frames, clip.size, clip.size))

    def entered(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which frames of a clip enter."""
        return clip.size, clip.size

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of the encoder's tokens of a clip; of one whose tokens are no patches, that of an empty clip."""
        patch_size = getattr(self.encoder, "patch_size", None)
        if patch_size is None or getattr(self.encoder, "merges_patches", False):
            with torch.device("meta"):
                encoder = find_encoder(self.config.encoder.build())
                assert encoder is not None
                return encoder.eval()(torch.empty(1, frames, 3, height, width, dtype=torch.uint8)).grid
        sizes = zip((frames, height, width), patch_size)
        return Grid(*(math.ceil(size / patch) for size, patch in sizes))

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a published model, by the names in its files.

        Raises:
            UserError: a weight has no place here; or no published layout of this method is known.
        """
        raise UserError(
            f"no published layout of {type(self).__name__} is known: start it from a run, or its parts from theirs "
            "(--objective.encoder-run, --objective.decoder-run)"
        )

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The ``config.json`` of the same model of ``transformers``, and its weights by the names in its files.

        Raises:
            UserError: ``transformers`` has no such model.
        """
        raise UserError(f"transformers has no network like {type(self).__name__}")

    def to_peft(self) -> tuple[dict[str, Any], Weights]:
        """The adaptation of the language model as ``peft`` writes it for that model of ``transformers``.

        Raises:
            UserError: the language model is not adapted.
        """
        return to_peft(self.decoder, self.blocks_in_transformers)

    def place(self, name: str) -> int:
        """The id at the place of ``<video>`` or ``<image>``, as published tokenizers have them.

        Raises:
            UserError: the language model has no such id.
        """
        ids = self.placeholders.tolist()
        found = ids[0 if name == VIDEO or len(ids) == 1 else 1]
        if not self.config.published and found >= self.decoder.config.vocab_size:
            raise UserError(
                f"{name} has the id {found}, and the language model {self.decoder.config.vocab_size}: transformers "
                "needs the place of a visual among them"
            )
        return int(found)

    def spread(self, text: Tensor, count: int) -> Tensor:
        """Texts ``B L`` with one place of a visual each, where ``count`` ids of -1 stand: ``B L+count-1``."""
        where = torch.isin(text, self.placeholders)
        repeats = torch.where(where, count, 1)
        rows = text.masked_fill(where, -1)
        return torch.stack([row.repeat_interleave(times) for row, times in zip(rows, repeats)])

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """What ``transformers``' model is given for ``B T C H W`` video and texts ``B L`` that have a place for it.

        Ids at the place are -1, as many as it takes tokens there.
        """
        raise TypeError(f"{type(self).__name__} does not define in_transformers(video, text)")

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
        """Nats per learnt token; logs the share of them that the model puts first, and that of shared rows' places
        that are no padding."""
        learnt, target = batch["learnt"][:, 1:], batch["text"][:, 1:]
        visual = self.in_text(self.watch(batch), batch)
        if "document" in batch or (self.ring is not None and self.training):
            return self._packed(visual, batch)
        logits = self.logits(visual, batch["text"], batch["text_length"], batch["learnt"])
        losses = token_losses(logits, target, learnt, smoothing=self.label_smoothing)
        right = ((logits.detach().argmax(dim=-1) == target) & learnt).sum() / learnt.sum().clamp(min=1)
        return Loss(averaged(losses, learnt, self.average), {"top1": right})

    def _packed(self, visual: Seen, batch: Batch) -> Loss:
        """The loss of a batch whose rows several examples share, or several processes.

        These have the gradient between them, and all of them the loss of the whole batch.
        """
        learnt, document = batch["learnt"][:, 1:], batch.get("document")
        weights = loss_weights(learnt, self.average, batch.get("step_means"), document)
        ring = self.ring if self.training else None
        loss, right = self.packed_losses(
            visual,
            batch["text"],
            batch["text_length"],
            weights,
            document,
            smoothing=self.label_smoothing,
            ring=ring,
        )
        loss, right = of_ring(loss, right, ring)
        metrics = {"top1": right / learnt.sum().clamp(min=1)}
        if document is not None:
            metrics["fill"] = (document > 0).float().mean()
        return Loss(loss, metrics)

    def use_ring(self, ring: RingOfProcesses) -> None:
        """Share the tokens of each row of the language model with other processes; see
        :class:`~filmstrip.protocols.SharesContext`. What is seen is shared out to be encoded, too.

        Raises:
            UserError: it takes no shared rows.
        """
        if not self.takes_packed:
            raise UserError(
                f"the language model of this {type(self).__name__} has no attention that processes can share: leave "
                "train.context at 1, so that they share the conversations of a batch"
            )
        self.ring = ring

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B T C H W`` video; zeros for a model that is blind."""
        visual = super().see(video)
        return visual if self.sees else visual * 0

    def watch(self, batch: Batch) -> Seen:
        """What is seen of a batch: of one image or video a row, or of as many as its ``frames`` tell apart.

        Frames that differ in size (``frame_size``) need a method that reads them.
        """
        video, frames, native = batch["video"], batch.get("frames"), NativeFrames.of(batch)
        if frames is not None:
            sizes = batch.get("frame_size")
            return self.see_each(video, frames, sizes if sizes is not None and sizes.ndim == 3 else None)
        if native is None:
            return self.see(video)
        count = torch.full((len(video), 1), video.shape[1], device=video.device)
        return self.see_each(video, count, native.size[:, None])

    def in_text(self, visual: Seen, batch: Batch) -> Seen:
        """Tokens ``B N D`` at the place of what was seen in the texts of a batch or a prompt; by default what was
        seen."""
        return visual

    @torch.no_grad()
    def score(self, visual: Seen, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-likelihood ``B`` of the learnt tokens of conversations about what was seen, and their number."""
        logits = self.logits(self.in_text(visual, batch), batch["text"], batch["text_length"], batch["learnt"])
        learnt = batch["learnt"][:, 1:]
        return -token_losses(logits, batch["text"][:, 1:], learnt).sum(dim=1), learnt.sum(dim=1)

    def answer(
        self, visual: Seen, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Sampling | None = None
    ) -> Iterator[Tensor]:
        """At most ``count`` ids ``B`` of an answer, one position at a time; row ``i`` draws from ``seed + i``."""
        text = prompt["text"]
        seeds = torch.arange(text.shape[0], device=text.device) + seed
        drawn = uniform(seeds, count, "language.answer")
        visual = self.in_text(visual, prompt)
        return self.continued(visual, text, prompt["text_length"], drawn, sampling or Sampling(temperature=0.0))
