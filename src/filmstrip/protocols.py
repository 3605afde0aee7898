"""The four protocols that every system combines, and the types exchanged between them.

Video is ``B T C H W``: ``uint8`` in 0..255, or floating point in 0..1. Models normalise their input, on the device.
Tokens are ``B N D``; grids and patch sizes are ``(t, h, w)``.

Methods of protocols take tensors on the model's device and leave its mode as it is. The caller moves tensors and,
except for training, enters inference mode: :mod:`filmstrip.inference` has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
"""What a loader yields: values by key, a row for each sample.

Each kind of sample declares its keys, with shapes, types and padding: the ``specification`` of the kinds in
``filmstrip.data.kinds``. ``seed``, ``name``, ``index`` and ``span`` are in the batches of every kind. Objectives name
the keys they need in ``requires``."""


class Grid(NamedTuple):
    """Number of tokens along time, height and width."""

    t: int
    h: int
    w: int


@dataclass
class Features:
    """An encoder's output: ``tokens`` (``B N D``) on a ``grid`` of ``N = t * h * w`` positions.

    ``layers`` holds every layer's tokens, first to last, if requested. ``summary`` is the encoder's own summary of
    each time step (``B t D``) or of the clip (``B 1 D``), such as a class token, if it has one.
    """

    tokens: Tensor
    """Tokens of the last layer, ``B N D``."""
    grid: Grid
    """Grid of the ``N`` positions."""
    layers: tuple[Tensor, ...] = ()
    """Tokens of every layer, each ``B N D``, first to last; empty if they were not requested."""
    summary: Tensor | None = None
    """The encoder's own summary, ``B t D`` or ``B 1 D``, if it has one."""
    summaries: tuple[Tensor, ...] = ()
    """Class tokens of every layer, each ``B t D``, first to last; empty if layers were not requested, or it has none
    of each time step."""

    def pooled(self) -> Tensor:
        """One vector for the clip, ``B D``: the mean of the encoder's own summary, else of its tokens."""
        return (self.tokens if self.summary is None else self.summary).mean(dim=1)

    def of_frames(self) -> Tensor:
        """One vector per time step, ``B t D``: the encoder's own summary, else the mean of its tokens."""
        if self.summary is not None and self.summary.shape[1] == self.grid.t:
            return self.summary
        return self.tokens.unflatten(1, (self.grid.t, -1)).mean(dim=2)


@dataclass
class Tokens:
    """A tokenizer's encoding of a video: ``ids`` (``B N``, int64) or ``latents`` (``B N D``), and their grid.

    A variable-length tokenizer encodes blocks of the grid, equal runs of positions. ``lengths`` (``B b``, int64) is
    then the number of valid tokens in each of ``b`` blocks, the first ones; the others are zero. None: all are valid.
    """

    grid: Grid
    """Grid of the ``N`` positions."""
    ids: Tensor | None = None
    """Codes, ``B N`` int64, of a tokenizer with a codebook."""
    latents: Tensor | None = None
    """Continuous latents, ``B N D``."""
    lengths: Tensor | None = None
    """Numbers of valid tokens of the blocks, ``B b`` int64; none if all are valid."""

    def kept(self) -> Tensor | None:
        """Mask of the valid positions among the grid's ``N``, ``B N``; none if all are valid.

        Raises:
            ValueError: the grid does not divide into that many blocks.
        """
        if self.lengths is None:
            return None
        positions, blocks = self.grid.t * self.grid.h * self.grid.w, self.lengths.shape[1]
        if positions % blocks:
            raise ValueError(
                f"{positions} positions on a grid of {tuple(self.grid)} do not divide into {blocks} blocks"
            )
        position = torch.arange(positions // blocks, device=self.lengths.device)
        return (position < self.lengths[:, :, None]).flatten(1)


class Loss(NamedTuple):
    """The scalar to minimise, and metrics to log (detached scalars)."""

    total: Tensor
    metrics: Mapping[str, Tensor]


@runtime_checkable
class Encoder(Protocol):
    """Turns video into features. Used by probes, tracking, procedures and language models."""

    width: int
    """D, the dimension of a token."""

    def __call__(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; with ``layers`` also return every layer's tokens."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Turns video into tokens and back. Used by every generator."""

    codebook_size: int | None
    """The number of ids; none for continuous tokens."""

    def encode(self, video: Tensor) -> Tokens:
        """Encode ``B T C H W`` video."""
        ...

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode to ``B T C H W`` video in 0..1."""
        ...


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The condition of samples. ``action[:, t]`` is the action between frames ``t - 1`` and ``t``."""

    batch_size: int
    """Number of samples, ``B``."""
    num_frames: int
    """Number of frames of the result, context frames included."""
    video: Tensor | None = None
    """Context frames, the first of the result, ``B T0 C H W``, uint8 or 0..1."""
    known: Tensor | None = None
    """Pixels of ``video`` that are given, ``B T H W`` bool (sides of one are repeated), for a model that
    :class:`Completes`; ``video`` then has all frames. By default all of its pixels are."""
    label: Tensor | None = None
    """Classes, ``B`` int64."""
    action: Tensor | None = None
    """Actions, ``B T`` int64 or ``B T A`` floating point, for all ``num_frames``."""
    text: tuple[Batch, ...] = ()
    """Texts to follow, ``text`` and ``text_length`` of batches of ``B``: those of first frames, if these have their
    own, and those of whole videos."""


@runtime_checkable
class Generator(Protocol):
    """Samples video."""

    def sample(self, condition: Condition, *, seed: int, sampling: Any = None) -> Tensor:
        """``B T C H W`` in 0..1, starting with the unchanged context frames.

        Sample ``i`` uses ``seed + i`` and does not depend on its batch. ``sampling`` is a
        :class:`~filmstrip.nn.sampling.Sampling` or a subclass; by default the method's own.
        """
        ...


@runtime_checkable
class StreamingGenerator(Generator, Protocol):
    """A :class:`Generator` whose samples can be seen while they are generated."""

    def stream(self, condition: Condition, *, seed: int, sampling: Any = None) -> Iterator[Tensor]:
        """The frames after the context in pieces ``B t C H W``; together what :meth:`sample` returns."""
        ...


@runtime_checkable
class Completes(Generator, Protocol):
    """A :class:`Generator` that is given any part of its samples (``Condition.known``), not first frames alone."""

    def given_places(self, known: Tensor) -> Tensor:
        """Which places of its latents are given, ``B t 1 h w`` bool, where pixels are known, ``B T H W`` bool."""
        ...


@runtime_checkable
class LikelihoodModel(Protocol):
    """A model that assigns probabilities to clips."""

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability of each clip of a batch given its conditions, ``B`` nats."""
        ...

    def dims_of(self, batch: Batch) -> int:
        """The number of dimensions (codes or pixels) of that likelihood, for one clip of the batch."""
        ...


@runtime_checkable
class CodeModel(LikelihoodModel, Protocol):
    """A :class:`LikelihoodModel` of codes, one for each dimension of its likelihood."""

    def codes(self, batch: Batch) -> Tokens:
        """The codes of a batch, ``B dims``: those it brings, or those of its video."""
        ...


@runtime_checkable
class FrameScorer(Protocol):
    """A model that says how likely each frame of a clip is, given the ones before it."""

    num_frames: int
    """Number of frames in the longest clip that it scores, each frame being the last of those that it is given."""

    def frame_codes(self, video: Tensor) -> Tensor:
        """What frames are scored by, each made from its frame alone: ``B T ...`` of ``B T C H W`` video of any
        length."""
        ...

    def frame_log_probs(self, codes: Tensor, batch: Batch) -> Tensor:
        """The log-likelihood (nats) of each position of each frame, ``B T h w``, given earlier frames.

        ``codes`` are those of clips that begin where ``codes`` do, ``B T ...``. ``batch`` has their conditions
        (``label``), and a ``seed`` of each. A frame that comes later changes nothing of those before it. A model that
        does not score the first frame of a clip returns zeros for it, and one without positions a grid of one.
        """
        ...


@runtime_checkable
class Seer(Protocol):
    """A model that looks at video before it is told, or asked for, words: one look serves any number of texts."""

    def see(self, video: Tensor) -> Tensor:
        """What is seen of ``B T C H W`` video: tokens ``B N D``, or what they are made of, in any shape that begins
        with ``B``; zeros in its place tell nothing."""
        ...


@runtime_checkable
class Answers(Seer, Protocol):
    """A language model that answers questions about video, in token ids."""

    sees_several: bool
    """Whether a conversation may be about several images and videos."""

    def see_among(self, video: Tensor) -> Tensor:
        """As :meth:`see`, of an image or a video that is one of several."""
        ...

    def watch(self, batch: Batch) -> Any:
        """What is seen of a batch's ``video``, whose rows may hold several images and videos (``frames``): as of
        :meth:`see`, or a value with rows that can be sliced, expanded and multiplied by zero."""
        ...

    def answer(
        self, visual: Any, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Any = None
    ) -> Iterator[Tensor]:
        """At most ``count`` ids ``B`` of an answer to each prompt, one position at a time.

        A prompt is ``text`` and ``text_length`` of a conversation that ends where the answer begins. Row ``i`` draws
        from ``seed + i``, or from ``seed[i] + i``; without ``sampling`` the most probable id is taken.
        """
        ...

    def score(self, visual: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-likelihood ``B`` of what is ``learnt`` in conversations, and its number of tokens ``B``."""
        ...


@runtime_checkable
class TextWriter(Protocol):
    """A language model of text alone, in token ids."""

    def write_on(
        self, prompt: Batch, *, count: int, seed: int | Tensor = 0, sampling: Any = None
    ) -> Iterator[Tensor]:
        """At most ``count`` ids ``B`` after each prompt (``text`` and ``text_length``), one position at a time.

        Row ``i`` draws from ``seed + i``, or from ``seed[i] + i``; without ``sampling`` the most probable id is
        taken.
        """
        ...

    def text_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats ``B L-1`` of every token of ``text`` but the first, zero where it is not ``learnt``, and whether it
        is."""
        ...


@runtime_checkable
class NextTokens(Protocol):
    """A network that reads tokens, remembers them and says what comes next."""

    width: int
    """Dimension of a token."""

    def new_caches(self, batch: int, length: int) -> list[Any]:
        """What each layer remembers, still empty, for ``batch`` sequences of up to ``length`` tokens."""
        ...

    def next_logits(self, tokens: Tensor, caches: Sequence[Any], padding: Tensor | None = None) -> Tensor:
        """Logits ``B K`` of the token after ``tokens`` (``B N`` ids)."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All its parts."""
        ...


EVALUATION = "eval/"
"""Prefix of the names of evaluations among the values that a run records."""
Labels = Literal["class", "several", "number"]
"""What a sample's label is: one class; several classes, or none; or one number or several."""


class Phase(NamedTuple):
    """One optimiser's part of a step: a GAN has two phases, most objectives have one."""

    name: str
    modules: tuple[nn.Module, ...]
    """Modules whose trainable parameters this phase updates."""


class ParamGroup(NamedTuple):
    """Parameters that share a learning rate and a weight decay."""

    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    decay: bool
    """Whether weight decay applies (not to norms, biases and embeddings)."""
    depth: int
    """Layer index from the input; layer-wise decay scales by ``layer_decay ** (max_depth - depth)``."""
    rate: float = 1.0
    """Factor of AdamW's learning rate by the network's width (muP); the product of rate and weight decay stays."""


class Objective(nn.Module):
    """A model with everything that its loss needs. The training loop depends on nothing but this class.

    Subclasses own their teacher, momentum copy, discriminator or frozen tokenizer, and know nothing of ranks,
    checkpoints, precision, compilation or logging. One that holds an :class:`Encoder` names it ``encoder``, and one
    that holds a :class:`Tokenizer` ``tokenizer``: :func:`find_encoder` and :func:`find_tokenizer` find them.
    """

    requires: tuple[str, ...] = ("video",)
    """Batch keys that ``forward`` reads; checked against the data's specification before anything is decoded."""
    kept_elsewhere: tuple[str, ...] = ()
    """Names of frozen parts whose weights are kept elsewhere: they are neither saved nor synchronised over processes.
    Set by whoever loads these weights."""
    starts_whole: bool = False
    """Whether a run that is to start from another one, or from released weights, takes all of them: those of its own
    method alone. Otherwise it takes the encoder, or the predictor, from any method that has one."""
    takes_labels: tuple[Labels, ...] = ("class",)
    """The labels that it can learn from, if it learns from labels."""
    labels: Labels = "class"
    """What the labels are that it learns from, and so what ``classify`` says: logits of which class is true, or of
    each one alone, or numbers."""
    takes_packed: bool = False
    """Whether several samples may share a row of its language model (masked packing)."""
    takes_native: bool = False
    """Whether clips of a batch may have frames of different sizes (:class:`~filmstrip.nn.patches.NativeFrames`)."""
    lora_part: str | None = None
    """Name of the part whose linear layers ``--lora`` adapts, where that is no encoder."""
    leaves_out_unknown_rewards: bool = False
    """Whether an agent learns nothing from steps whose reward is not a number."""
    starts_rest: bool = False
    """Whether it also takes what it has beside its encoder, where the other run, or the file, has that too."""

    def own_state(self) -> dict[str, Tensor]:
        """The state without the parts that are kept elsewhere."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not self.is_kept_elsewhere(name)}

    def load_own_state(self, weights: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`own_state`.

        Raises:
            RuntimeError: weights are missing, unexpected or of other shapes.
        """
        missing, unexpected = self.load_state_dict(weights, strict=False)
        missing = [name for name in missing if not self.is_kept_elsewhere(name)]
        if missing or unexpected:
            raise RuntimeError(f"missing are {missing[:5] or 'none'}, and unexpected {unexpected[:5] or 'none'}")

    def is_kept_elsewhere(self, name: str) -> bool:
        """Whether a parameter or buffer belongs to a part that is kept elsewhere."""
        return any(name.startswith(f"{part}.") for part in self.kept_elsewhere)

    def is_fresh(self, name: str) -> bool:
        """Whether a parameter begins anew where the run that this one starts from does not have it; by default
        none."""
        return False

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """Weights that this method begins with where it starts from a run of another one, or of its own with other
        parts, by their names here; the rest begins anew. None, by default, if it cannot start from such a run, or
        takes all of it."""
        return None

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch, for the phase that is being optimised."""
        raise TypeError(f"{type(self).__name__} does not define forward(batch, phase)")

    def phases(self) -> tuple[Phase, ...]:
        """The ordered optimiser groups of one step; by default a single one with everything trainable."""
        return (Phase("main", (self,)),)

    def started(self) -> None:
        """Called when weights have come from elsewhere (``init``), before the first step: a momentum teacher that did
        not come with them begins as its student, so that no step learns from one that is untrained."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step (momentum teacher, codebook restarts); ``step`` counts from 1."""

    def depth_of(self, name: str) -> int:
        """The layer index of a parameter, from the input (for layer-wise learning rate decay)."""
        return 0

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Whether a parameter is excluded from weight decay: by default all biases and one-dimensional scales."""
        return param.ndim < 2 or name.endswith((".bias", "_token", "pos_embed"))

    def rate_of(self, name: str) -> float:
        """The factor of a parameter's learning rate that the network's width asks for (muP); by default none."""
        return 1.0

    def param_groups(self, phase: Phase) -> list[ParamGroup]:
        """The trainable parameters of one phase, grouped by layer, whether weight decay applies, and rate."""
        wanted = {id(p) for module in phase.modules for p in module.parameters() if p.requires_grad}
        groups: dict[tuple[int, bool, float], list[tuple[str, nn.Parameter]]] = {}
        for name, param in self.named_parameters():
            if id(param) in wanted:
                key = (self.depth_of(name), not self.no_decay(name, param), self.rate_of(name))
                groups.setdefault(key, []).append((name, param))
        return [
            ParamGroup(tuple(n for n, _ in members), tuple(p for _, p in members), decay, depth, rate)
            for (depth, decay, rate), members in sorted(groups.items())
        ]


@runtime_checkable
class LayeredLearner(Protocol):
    """An objective that has its encoder's layers from the same pass as its loss."""

    def loss_and_layers(self, batch: Batch) -> tuple[Loss, tuple[Tensor, ...]]:
        """The loss of a batch, and the tokens of every layer of its clips, each ``B N D``."""
        ...


class EncoderModule(Encoder, nn.Module):
    """A module that is an encoder, for annotations; nothing has to extend it."""


class TokenizerModule(Tokenizer, nn.Module):
    """A module that is a tokenizer, for annotations; nothing has to extend it."""


def find_encoder(objective: nn.Module) -> EncoderModule | None:
    """The encoder of an objective, if it has one. Parts of that name that are no :class:`Encoder` do not count."""
    part = getattr(objective, "encoder", None)
    return cast("EncoderModule", part) if isinstance(part, Encoder) else None


def find_tokenizer(objective: nn.Module) -> TokenizerModule | None:
    """The objective itself if it is a tokenizer, otherwise the one that it holds, if any."""
    part = objective if isinstance(objective, Tokenizer) else getattr(objective, "tokenizer", None)
    return cast("TokenizerModule", part) if isinstance(part, Tokenizer) else None


Collective = Callable[[Tensor], Tensor]
"""An operation on one tensor of each process, in place, such as their sum."""


@runtime_checkable
class SharesStatistics(Protocol):
    """A part of an objective that collects statistics of a step, whose batch may be spread over processes."""

    def share_statistics(self, *, sum_all: Collective, from_first: Collective) -> None:
        """Collect those of all processes from now on, by their sum or by taking the first process's."""
        ...


@runtime_checkable
class RingOfProcesses(Protocol):
    """Processes that pass tensors on from each to the next: :class:`filmstrip.distributed.ring.Ring`."""

    rank: int
    """Position of this process in the ring, from 0."""
    size: int
    """Number of processes in the ring."""
    striped: bool
    """Whether each has every so many of a row's tokens, in place of adjacent ones."""

    def start(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to send tensors to the next process; the result waits for those of the one before."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor of each process, without gradients."""
        ...

    def maximum(self, tensor: Tensor) -> Tensor:
        """The elementwise maximum of a tensor of each process, without gradients."""
        ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, all of one shape, by rank, without gradients."""
        ...


@runtime_checkable
class SharesTokens(Protocol):
    """A block of tokens ``B N D`` that several processes can share, since they meet in its attention alone."""

    def share_tokens(self, ring: RingOfProcesses) -> bool:
        """Compute this process's tokens of each row alone in training, from now on; or return that it cannot.

        It is given all tokens, and returns all. Every process is given the same.
        """
        ...


@runtime_checkable
class StandInForRing(RingOfProcesses, Protocol):
    """A ring of processes that are not there: what a plan is made with."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What takes the place of attention ``B H N D`` along the ring."""
        ...


@runtime_checkable
class SharesContext(Protocol):
    """An objective whose attention can be shared by processes that read the same batches (``train.context``)."""

    def use_ring(self, ring: RingOfProcesses) -> None:
        """Attend along a ring of those processes from now on; called once, before the first step.

        The loss is that of the whole batch in each of them. Gradients may differ, as long as their mean over the
        processes is that of the loss.

        Raises:
            UserError: this method's attention cannot be shared.
        """
        ...


PassOn = Callable[[Tensor], Tensor]
"""Sends a tensor to the next process of a ring and returns that of the one before; gradients go the other way."""


@runtime_checkable
class SharesRows(Protocol):
    """An objective whose loss compares each row of a batch with all others, those in other processes included."""

    def share_rows(self, pass_on: PassOn, processes: int, rank: int) -> None:
        """Compare with the rows of all ``processes`` from now on, each of which passes its own on along a ring; this
        is the one with number ``rank``, whose rows of a batch come after those of lower ones."""
        ...


@runtime_checkable
class Published(Protocol):
    """An objective without an encoder whose authors released weights in their own layout."""

    def from_published(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its weights, or those of a complete part, from a released state dictionary or the contents of its file.

        Raises:
            UserError: a weight is missing or unexpected.
        """
        ...


Rules = tuple[tuple[str, str], ...]
"""Regular expressions and what takes the place of their matches, tried in order; each may match a part of a name."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How released weights of a network lie in their files. Our names are an objective's, ``encoder.`` included.

    Shapes that differ in sides of one alone need no word here: a 1 x 3 x 3 kernel is read as a 3 x 3 one.
    """

    name: str
    """Name of the layout's owner."""
    rules: Rules
    """From our names to theirs."""
    after: tuple[str, ...] = ()
    """Patterns of their names of what comes after the encoder, left out when only that is loaded."""
    spare: tuple[str, ...] = ()
    """Patterns of their names that are no weights of this network; they are always left out."""
    optional: tuple[str, ...] = ()
    """Patterns of their names that such files lack: those weights stay as they are."""
    absent: tuple[str, ...] = ()
    """Patterns of our names that no file holds, such as those of a teacher."""
    to_ours: Callable[[str, Tensor], Tensor] | None = None
    """Our tensor from theirs, by our name, where the numbers lie otherwise."""
    to_theirs: Callable[[str, Tensor], Tensor] | None = None
    """The inverse. Several of ours with one name there are parts of one, in order."""
    unpack: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """One state from what a file holds, where that is several states, or one with other tensors than ours. A file of
    another layout is returned as it is."""
    pack: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] | None = None
    """The inverse."""
    check: Callable[[Mapping[str, Tensor]], None] | None = None
    """Raises a UserError of its own for a file of a network that is easily taken for this one."""


@runtime_checkable
class Released(Protocol):
    """A network whose authors released weights, in a layout or several."""

    def layouts(self) -> tuple[Layout, ...]:
        """Those that :mod:`filmstrip.weights.released` is to read; of a file, the one that fits best counts."""
        ...


@runtime_checkable
class InTransformers(Protocol):
    """An objective that ``transformers`` has as a model, too."""

    def to_transformers(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The ``config.json`` of that model, and its weights by the names there.

        Raises:
            UserError: ``transformers`` has no network of this kind.
        """
        ...


@runtime_checkable
class SeveralInTransformers(Protocol):
    """An objective that ``transformers`` has as several models, for different uses."""

    def to_transformers_as(self, model: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The same as of :class:`InTransformers`, as a ``model`` of this name.

        Raises:
            UserError: ``transformers`` has none of this name and kind; the message names those that it has.
        """
        ...


@runtime_checkable
class FromTransformers(Protocol):
    """An objective that starts from a model of ``transformers`` with all that is around its encoder."""

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its weights from those of a model of that kind; nothing, if they are another kind's.

        Raises:
            UserError: a weight has no place here.
        """
        ...


@runtime_checkable
class InDiffusers(Protocol):
    """An objective that ``diffusers`` has as a model, too."""

    def to_diffusers(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The ``config.json`` of that model, and its weights by the names there.

        Raises:
            UserError: ``diffusers`` has no network of this kind.
        """
        ...


class Pipeline(NamedTuple):
    """A pipeline of ``diffusers``: a network with an autoencoder and an encoder of texts."""

    name: str
    """Name of its class."""
    autoencoder: str
    """Name of the class of its autoencoder."""
    text_length: int
    """Number of token ids of its texts, padding included, unless it is told otherwise."""
    settings: dict[str, Any]
    """What its ``model_index.json`` says beside the names of its parts."""


@runtime_checkable
class InPipeline(InDiffusers, Protocol):
    """An objective whose network is a part of a pipeline of ``diffusers``, too."""

    def pipeline(self) -> Pipeline:
        """What that pipeline is.

        Raises:
            UserError: ``diffusers`` has none with this network.
        """
        ...

    def beside(self, theirs: Any) -> tuple[Tensor, Tensor]:
        """Outputs of its network as ``diffusers`` has it, and of our own, for drawn inputs."""
        ...


@runtime_checkable
class InPeft(Protocol):
    """An objective whose adaptation of low rank is one of a published model."""

    def to_peft(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The ``adapter_config.json`` that ``peft`` reads, and its weights by the names there.

        Raises:
            UserError: it is not adapted.
        """
        ...


@runtime_checkable
class FromImage(Protocol):
    """A video's encoder that an image's transformer can start."""

    def load_image(self, image: Mapping[str, Tensor]) -> None:
        """Copy the weights of an image's transformer, in place.

        Raises:
            RuntimeError: a weight has another shape.
        """
        ...


@runtime_checkable
class TextFromTransformers(Protocol):
    """An objective whose tower of texts starts from a model of text of ``transformers``."""

    def text_from_transformers(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of that tower, by this objective's names, from those of such a model.

        Raises:
            UserError: a weight has no place there.
        """
        ...


@runtime_checkable
class Grows(Protocol):
    """A video's encoder, or an objective, that one for clips of another length can start."""

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of such a network, made to fit this one."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """An objective or model that classifies video."""

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video; their softmax is the predicted distribution."""
        ...


@runtime_checkable
class DualEncoder(Protocol):
    """An objective or model that encodes video and text as vectors which can be compared, both of length one."""

    def encode_video(self, video: Tensor, *native: Any) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, or ``B K D``, several of each. Models of frames of any size also
        take those of the batch (:class:`~filmstrip.nn.patches.NativeFrames`)."""
        ...

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts: token ids ``B L``, padded, and their numbers ``B`` without the padding."""
        ...

    def similarity(self, video: Tensor, text: Tensor) -> Tensor:
        """Logits ``N M`` of the vectors of ``N`` videos and of ``M D`` of texts."""
        ...


@runtime_checkable
class Matcher(Seer, Protocol):
    """An objective or model that reads video and text together, and says whether they belong together."""

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that texts (ids ``B L``, of which ``lengths`` are no padding) belong to what was seen."""
        ...


@runtime_checkable
class Captioner(Seer, Protocol):
    """An objective or model that says in words what is seen, in token ids."""

    def caption(
        self, visual: Tensor, prompt: Sequence[int] = (), *, end: int, seed: int | Tensor = 0, writing: Any = None
    ) -> Tensor:
        """A caption of each, ids ``B N`` behind the ``prompt``'s, with ``end`` behind what was said.

        ``writing`` is a :class:`~filmstrip.nn.decoding.Writing`; row ``i`` draws from ``seed + i``, or from
        ``seed[i] + i``.
        """
        ...


@runtime_checkable
class Refers(Protocol):
    """An objective or model that finds what a phrase names in the frames of a video."""

    def locate(self, video: Tensor, phrase: Tensor, lengths: Tensor, *native: Any) -> Tensor:
        """Boxes ``B M T 4`` in each frame of ``B T C H W`` video (left, top, right, bottom, as fractions of it), of
        phrases: token ids ``B M P``, padded, and their numbers ``B M`` without the padding. ``native`` are sizes that
        differ (:class:`~filmstrip.nn.patches.NativeFrames`)."""
        ...


@runtime_checkable
class FlowClassifier(Classifier, Protocol):
    """A :class:`Classifier` that also uses optical flow."""

    def flow(self, video: Tensor) -> Tensor:
        """Flow between the frames of ``B T C H W`` video, ``B T-1 2 H W``, pixels."""
        ...

    def classify(self, video: Tensor, flow: Tensor | None = None) -> Tensor:
        """Logits ``B K`` of video and its flow, which is estimated if not provided."""
        ...


@runtime_checkable
class MaskedPredictor(Protocol):
    """An objective or model that predicts masked positions of a clip's grid from any visible ones."""

    def masks(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the visible (``B V``) and the masked (``B K``) positions, from each clip's seed (``B``)."""
        ...

    def predict_masked(self, video: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predictions at ``masked``, ``B K D``, from ``B T C H W`` video at ``visible`` alone."""
        ...


class FilledIn(NamedTuple):
    """A masked video, and the same with the masked parts filled in, both ``B T C H W`` in 0..1."""

    masked: Tensor
    """The visible parts; masked ones are grey."""
    rebuilt: Tensor
    """The visible parts, and predictions in place of the masked ones."""


@runtime_checkable
class Reconstructs(Protocol):
    """An objective that fills in the masked parts of a clip as pixels."""

    def reconstruct(self, video: Tensor, seeds: Tensor) -> FilledIn:
        """Mask ``B T C H W`` video, each clip by its seed (``B``), and fill it in."""
        ...


@runtime_checkable
class GoalPlanner(Protocol):
    """An objective or model that finds actions which lead from one image to another."""

    state_dim: int
    """Numbers of a state that it needs beside the image; zero for none."""

    def plan_actions(
        self, frame: Tensor, goal: Tensor, state: Tensor | None = None, *, seed: int, horizon: int | None = None
    ) -> Tensor:
        """Actions ``B H A`` to take one after the other, from ``frame`` to ``goal`` (both ``B C H W``).

        ``state`` (``B S``) is what is known of the body that acts, such as where its gripper is; ``horizon`` is the
        number of actions, by default the method's own. Row ``i`` uses ``seed + i``.
        """
        ...


@runtime_checkable
class Policy(Protocol):
    """An objective or model that acts on what it sees."""

    action_dim: int
    """Numbers of an action."""
    state_dim: int
    """Numbers of a state that it needs beside the image; zero for none."""

    def act(self, frame: Tensor, state: Tensor | None = None) -> Tensor:
        """The action to take now, ``B A``, from what is seen (``B C H W``) and the body's state (``B S``)."""
        ...


@runtime_checkable
class Agent(Protocol):
    """An objective that acts in environments, of which it sees frame after frame."""

    def decide(
        self, frame: Tensor, memory: dict[str, Tensor] | None, first: Tensor, *, seed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The actions to take now, and the memory to come with the next frames.

        ``frame`` is what is seen (``B C H W``); ``memory`` what was returned before, tensors ``B ...``, or none; and
        ``first`` (``B``, bool) says where an episode begins, of which memory is to be forgotten. Actions are ``B A``
        from -1 to 1, or ``B`` int64. To explore, row ``i`` draws from ``seed[i]``; without, it does its best.
        """
        ...


@runtime_checkable
class PromptedAgent(Agent, Protocol):
    """An :class:`Agent` that is shown by a film what to do."""

    prompt_frames: int
    """Number of frames of such a film that it sees."""

    def prompted(self, prompt: Tensor) -> dict[str, Tensor]:
        """The memory to begin with, after films ``B P C H W``; ``first`` of :meth:`decide` does not forget them."""
        ...


@runtime_checkable
class Forecaster(Protocol):
    """An objective or model that predicts the steps of a procedure."""

    def forecast(self, batch: Batch, *, samples: int = 1, seed: int = 0) -> Tensor:
        """Logits ``B K S steps`` of the step at every position of a batch of procedures, for ``K = samples``.

        It reads ``features``, ``seen`` and ``target``, never ``step``. Row ``i`` uses ``seed + i``.
        """
        ...


@dataclass
class Detections:
    """Actions detected in one video, in descending order of score."""

    segments: Tensor
    """Start and end, seconds, ``N 2`` float64."""
    scores: Tensor
    """Scores from 0 to 1, ``N``."""
    classes: Tensor
    """Class indices, ``N`` int64."""


@runtime_checkable
class Localiser(Protocol):
    """An objective or model that detects actions and their times in untrimmed video."""

    def localise(self, batch: Batch) -> list[Detections]:
        """Detections in each video, on the CPU; reads ``sequence``, ``length``, ``timing`` and ``seconds``."""
        ...


@dataclass
class Grounding:
    """The moments that answer one query in one video, in descending order of score."""

    segments: Tensor
    """Start and end, seconds, ``N 2`` float64."""
    scores: Tensor
    """Scores from 0 to 1, ``N``."""
    saliency: Tensor | None = None
    """How much of a highlight each of the video's features is for the query, ``T``; none if it is not predicted."""


@runtime_checkable
class Grounder(Protocol):
    """An objective or model that finds the moments of a video that a query in words describes."""

    def ground(self, batch: Batch) -> list[list[Grounding]]:
        """What each query of each video found, on the CPU.

        It reads ``sequence``, ``length``, ``timing``, ``seconds``, ``query`` and ``query_length``, never the moments.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """An objective or model that classifies actions within boxes of a clip."""

    def detect(self, video: Tensor, boxes: Tensor) -> Tensor:
        """Probabilities ``B M K`` of each class, for ``B T C H W`` video and ``boxes`` as in batches."""
        ...


class NextContacts(NamedTuple):
    """Objects that will be touched next, in descending order of score; a score of zero is padding."""

    boxes: Tensor
    """Left, top, right, bottom, as fractions of the frame, ``B N 4``."""
    nouns: Tensor
    """Class of the object, ``B N``."""
    verbs: Tensor
    """Class of the action by which it is touched, ``B N``."""
    seconds: Tensor
    """Time from the last frame to the contact, ``B N``."""
    scores: Tensor
    """Probability of noun and verb, ``B N``."""


@runtime_checkable
class ContactForecaster(Protocol):
    """An objective or model that finds the objects that will be touched next."""

    def next_contacts(self, video: Tensor) -> NextContacts:
        """What will be touched after the last frame of ``B T C H W`` video, and where that is in this frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class VideoEdit:
    """Videos that are to be changed by words, and how."""

    video: Tensor
    """Videos to edit, ``B T C H W``, uint8 or 0..1."""
    source_text: Tensor
    """Token ids of what they show, ``B L``."""
    source_length: Tensor
    """Number of these ids before the padding, ``B``."""
    text: Tensor
    """Token ids of what they are to show, ``B L``."""
    text_length: Tensor
    """Number of these ids before the padding, ``B``."""
    seeds: Tensor
    """Seed of each video, ``B`` int64."""
    keeps_motion: bool = True
    """Whether things are to move as in the source."""
    frame: Tensor | None = None
    """First frames as they are to be, ``B C H W``, uint8 or 0..1; by default the method edits them, if it needs
    them."""
    frame_by: Literal["source", "prompt_to_prompt", "sdedit"] = "prompt_to_prompt"
    """How the method edits first frames: not at all, by exchanging attention, or by noise that is taken away."""
    frame_editing: Any = None
    """Settings of that, a :class:`~filmstrip.data.edits.FrameEditing`."""
    depth: Tensor | None = None
    """Depth maps of the videos, ``B T 1 H W``, larger where things are nearer, in any unit, for methods that edit by
    depth."""
    guidance: Mapping[str, float] = field(default_factory=dict)
    """Scales of guidance by the names of conditions, in place of the method's own."""
    sampling: Any = None
    """How samples are drawn, a :class:`~filmstrip.objectives.diffusion_sampling.DiffusionSampling`; by default the
    method's own."""
    tuning: Any = None
    """How a method is first trained on the video, a :class:`~filmstrip.objectives.film_tuning.Tuning`; by default
    the method's own, if it is."""

    def rows(self) -> Iterator[VideoEdit]:
        """Each edit by itself, as a batch of one."""
        for i in range(len(self.video)):
            own: dict[str, Any] = {
                f.name: value[i : i + 1] for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
            }
            yield replace(self, **own)


@runtime_checkable
class VideoEditor(Protocol):
    """An objective or model that changes videos by words."""

    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited videos, ``B T C H W`` in 0..1; row ``i`` depends on ``seeds[i]`` and not on its batch."""
        ...


def as_float(video: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Video in 0..1 of a floating dtype: ``uint8`` is divided by 255, floating point is only cast."""
    return video.to(dtype).div_(255) if video.dtype == torch.uint8 else video.to(dtype)


def check_video(video: Tensor, *, channels: int = 3, multiple: Sequence[int] = (1, 1, 1)) -> None:
    """Refuse a tensor that is not ``B T C H W`` with dimensions that patches of ``multiple`` (t, h, w) tile.

    Raises:
        ValueError: states the actual and the expected shape.
    """
    if video.ndim != 5 or video.shape[2] != channels:
        raise ValueError(f"expected video of shape (B, T, {channels}, H, W), got {tuple(video.shape)}")
    t, h, w = video.shape[1], video.shape[3], video.shape[4]
    if any(size % m for size, m in zip((t, h, w), multiple)):
        raise ValueError(f"video of {t} x {h} x {w} (T x H x W) is not a multiple of patches {tuple(multiple)}")
