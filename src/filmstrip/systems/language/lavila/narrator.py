"""LaViLa's narrator: a frozen language model that looks at a clip through layers between its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.models.decoder import BeforeBlock
from filmstrip.models.gpt2_layout import from_gpt2, to_gpt2, turned
from filmstrip.models.query_transformer import QueryPooling, QueryPoolingConfig
from filmstrip.nn.attention import Attention
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.linear import Linear
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig, averaged, token_losses
from filmstrip.protocols import Batch, Grid, Loss
from filmstrip.randomness import uniform
from filmstrip.weights.keymap import KeyMap, Weights, check_names

NUCLEUS = Sampling(temperature=0.7, top_p=0.95)
"""How narrations are drawn."""


@dataclass(frozen=True, kw_only=True)
class PoolingConfig(ConnectorConfig):
    """One attention from learned queries to a clip's tokens, whose heads share their keys and values."""

    num_queries: Count = 256
    """Number of tokens that the language model sees."""
    num_heads: Count = 12
    """Attention heads."""
    head_dim: Count = 64
    """Dimension of a head."""

    def build(self, visual_width: int, width: int) -> Pooling:
        """Build the connector with fresh weights."""
        return Pooling(self, visual_width, width)


class Pooling(Connector):
    """As many tokens of a clip as there are queries, however long and large it is."""

    def __init__(self, config: PoolingConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.pool = QueryPooling(
            QueryPoolingConfig(
                num_queries=config.num_queries,
                width=width,
                num_heads=config.num_heads,
                head_dim=config.head_dim,
                num_kv_heads=1,
                context_width=visual_width,
                bias=False,
                norm_eps=1e-5,
            )
        )
        nn.init.normal_(self.pool.queries, std=width**-0.5)

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        return self.num_queries

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B M C`` to ``B K D``."""
        return self.pool(tokens)


Read = tuple[Tensor, Tensor]
"""Keys and values of what is looked at, each ``B H N D``."""


class GatedLayer(nn.Module):
    """Attention to a clip's tokens, then a feed-forward network of squared ReLUs, each times the tanh of a gate.

    Both gates start at zero: the language model begins as it was.
    """

    def __init__(self, width: int, num_heads: int, mlp_dim: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads, context_width=width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.fc1 = Linear(width, mlp_dim)
        self.fc2 = Linear(mlp_dim, width)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.mlp_gate = nn.Parameter(torch.zeros(()))
        self.apply(init_normal)

    def read(self, visual: Tensor) -> Read:
        """What :meth:`forward` attends to, of tokens ``B N D``; computed once for all words of a text."""
        return self.attention.keys_and_values(visual)

    def forward(self, x: Tensor, seen: Read) -> Tensor:
        """``B L D`` to the same."""
        x = x + self.attention_gate.tanh() * self.attention.read(self.norm1(x), *seen)
        return x + self.mlp_gate.tanh() * self.fc2(F.relu(self.fc1(self.norm2(x))).square())


@dataclass(frozen=True, kw_only=True)
class NarratorConfig(VideoLanguageConfig):
    """An encoder of clips and a language model, both frozen, and what is trained between them."""

    connector: PoolingConfig = field(default_factory=PoolingConfig)
    """Pooling of a clip's tokens."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained beside the gated layers; the others are frozen, and kept by reference where their run is
    named."""
    gated_every: Count = 1
    """Number of blocks of the language model from one with a gated layer before it to the next; the first has one."""
    start: CountOrZero = 1
    """Id that begins a text. In training it comes from the data."""
    end: CountOrZero = 2
    """Id that ends a text. In training it comes from the data."""

    def bind(self, info: DataInfo) -> Self:
        """Take the ids from the data, and the size of the vocabulary for a language model that is new.

        Raises:
            UserError: the data have no captions, longer ones than the language model reads, or another model's
                tokens.
        """
        if not isinstance(info, CaptionInfo):
            raise UserError("a narrator learns from captions: read data with captions (--data.reads captioned)")
        words, decoder = info.tokenizer, self.decoder
        if decoder.max_length is not None and info.max_length > decoder.max_length:
            raise UserError(
                f"captions of {info.max_length} tokens are longer than the language model's {decoder.max_length}: "
                "lower data.reads.max_length"
            )
        if words.start is None:
            raise UserError("a narration begins with the tokenizer's start of text, and this tokenizer has none")
        if self.decoder_run is None:
            decoder = replace(decoder, vocab_size=words.size)
        elif max(words.size, words.start + 1, words.end + 1) > decoder.vocab_size:
            raise UserError(
                f"the tokenizer has {words.size} ids and the language model {self.decoder_run} {decoder.vocab_size}: "
                f"give its own (--data.reads.tokenizer {self.decoder_run})"
            )
        return replace(self, decoder=decoder, start=words.start, end=words.end)

    def build(self) -> Narrator:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, or the language model is both trained and adapted.
        """
        return Narrator(self)


class Narrator(VideoLanguage):
    """Learns what is said of a clip, word by word, and says it; one of :class:`~filmstrip.protocols.Answers`."""

    requires = ("video", "text", "text_length")
    takes_packed = False

    def __init__(self, config: NarratorConfig) -> None:
        super().__init__(config)
        self.start, self.end = config.start, config.end
        own, every = config.decoder, config.gated_every
        self.gated = nn.ModuleDict(
            {
                str(i): GatedLayer(own.width, own.num_heads, own.mlp_dim, norm_eps=own.norm_eps)
                for i in range(0, own.depth, every)
            }
        )

    def encoded(self, video: Tensor) -> tuple[Tensor, Grid]:
        """The encoder's tokens of ``B T C H W`` video behind its summary of the clip, ``B 1+M C``, and their grid."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "encoder" in self.trained):
            seen = self.encoder(video)
        tokens = seen.tokens if seen.summary is None else torch.cat([seen.summary, seen.tokens], dim=1)
        dtype = next(self.connector.parameters()).dtype
        return tokens if torch.is_autocast_enabled() else tokens.to(dtype), seen.grid

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per token of a caption; logs the share of tokens that the model puts first."""
        ids, learnt = batch["text"], self.learnt(batch)
        logits = self.logits(self.see(batch["video"]), ids, batch["text_length"])
        losses = token_losses(logits, ids[:, 1:], learnt, smoothing=self.label_smoothing)
        right = ((logits.detach().argmax(dim=-1) == ids[:, 1:]) & learnt).sum() / learnt.sum()
        return Loss(averaged(losses, learnt, self.average), {"top1": right})

    @staticmethod
    def learnt(batch: Batch) -> Tensor:
        """Which ids after the first of each text are to be said, ``B L-1``: all that are no padding."""
        place = torch.arange(1, batch["text"].shape[1], device=batch["text"].device)
        return place < batch["text_length"][:, None]

    def logits(self, visual: Tensor, text: Tensor, text_length: Tensor) -> Tensor:
        """Logits ``B L-1 vocab_size`` of every id of the text but the first, each from all that stands before it."""
        return self.decoder.logits(self.decoder(text[:, :-1], before=self.looking(visual)).hidden)

    def looking(self, visual: Tensor) -> BeforeBlock:
        """What the gated layers do before the blocks of the language model, of tokens ``B N D``."""
        read = {int(number): layer.read(visual) for number, layer in self.gated.items()}
        return lambda i, x: self.gated[str(i)](x, read[i]) if i in read else x

    @torch.no_grad()
    def continued(
        self, visual: Tensor, text: Tensor, text_length: Tensor, uniform: Tensor, sampling: Sampling
    ) -> Iterator[Tensor]:
        """The ids ``B`` after a prompt, one position at a time, as many as ``uniform`` (``B N``) has columns."""
        padding = text.shape[1] - text_length
        at = torch.arange(text.shape[1], device=text.device)
        moved = text.gather(1, (at - padding[:, None]) % text.shape[1])  # all rows end together
        yield from self.decoder.decode(moved, uniform, sampling, padding=padding, before=self.looking(visual))

    @torch.no_grad()
    def score(self, visual: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-likelihood ``B`` of texts about what was seen, and their number of tokens ``B``."""
        learnt = self.learnt(batch)
        logits = self.logits(visual, batch["text"], batch["text_length"])
        return -token_losses(logits, batch["text"][:, 1:], learnt).sum(dim=1), learnt.sum(dim=1)

    @torch.no_grad()
    def narrate(
        self, visual: Tensor, *, samples: int = 10, count: int = 77, seed: int = 0, sampling: Sampling = NUCLEUS
    ) -> Tensor:
        """``samples`` narrations of each clip that was seen, ids ``B samples count``, each up to its end.

        The ids after an end, and after ``count``, are ends. Clip ``i`` draws from ``seed + i``.
        """
        seeds = torch.arange(visual.shape[0], device=visual.device) + seed
        each = [uniform(seeds, count, "lavila.narration", k) for k in range(samples)]
        rows, drawn = visual.repeat_interleave(samples, dim=0), torch.stack(each, dim=1).flatten(0, 1)
        found = self._written(rows, (), drawn, Writing(max_tokens=count, sampling=sampling), self.end)
        return F.pad(found, (0, count - found.shape[1]), value=self.end).unflatten(0, (-1, samples))

    @torch.no_grad()
    def caption(
        self,
        visual: Tensor,
        prompt: Sequence[int] = (),
        *,
        end: int,
        seed: int | Tensor = 0,
        writing: Writing | None = None,
    ) -> Tensor:
        """One narration of each clip that was seen, ids ``B N`` behind those of ``prompt``, with ``end`` behind it.

        Without a ``writing`` it is drawn as narrations are. Clip ``i`` draws from ``seed + i``, or ``seed[i] + i``.
        """
        writing = writing or Writing(max_tokens=77, sampling=NUCLEUS)
        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "lavila.caption")
        return self._written(visual, prompt, drawn, writing, end)

    def _written(self, visual: Tensor, prompt: Sequence[int], drawn: Tensor, writing: Writing, end: int) -> Tensor:
        """What is said of each clip until all have ended, ids ``B N``, after the start and a prompt.

        Raises:
            UserError: it would be longer than the language model reads.
        """
        begun = torch.tensor([[self.start, *prompt]], device=visual.device).expand(len(visual), -1)
        most, length = self.decoder.config.max_length, begun.shape[1] + writing.max_tokens - 1
        if most is not None and length > most:
            raise UserError(
                f"narrations of {writing.max_tokens} tokens after {begun.shape[1]} are longer than the {most} that "
                "the language model reads: write fewer"
            )
        look = self.looking(visual.repeat_interleave(writing.beams, dim=0))
        caches = self.decoder.new_caches(len(visual) * writing.beams, length)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            if writing.beams > 1:
                for cache in caches:
                    cache.reorder(rows)
            new = text[:, caches[0].length :]
            return self.decoder.logits(self.decoder(new, caches=caches, before=look).hidden[:, -1])

        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Pooling, language model and gated layers from a narrator of the authors; its encoder is another network.

        Raises:
            UserError: the language model is none of GPT-2's kind, or a weight has no place here or is missing.
        """
        return from_published(theirs, self)


_POOLING = (
    ("img_queries", "connector.pool.queries"),
    ("img_attn_pool.norm.gamma", "connector.pool.query_norm.weight"),
    ("img_attn_pool.norm.beta", "connector.pool.query_norm.bias"),
    ("img_attn_pool.context_norm.gamma", "connector.pool.context_norm.weight"),
    ("img_attn_pool.context_norm.beta", "connector.pool.context_norm.bias"),
    ("img_attn_pool.to_q.weight", "connector.pool.attention.q.weight"),
    ("img_attn_pool.to_kv.weight", "connector.pool.attention.kv.weight"),
    ("img_attn_pool.to_out.weight", "connector.pool.attention.out.weight"),
    ("img_attn_pool_norm.gamma", "connector.pool.norm.weight"),
    ("img_attn_pool_norm.beta", "connector.pool.norm.bias"),
)
_LAYER = (
    ("ln_cross_attn", "norm1"),
    ("crossattention.q_attn", "attention.q"),
    ("crossattention.c_attn", "attention.kv"),
    ("crossattention.c_proj", "attention.out"),
    ("ln_2_crossattention", "norm2"),
    ("mlp_crossattention.c_fc", "fc1"),
    ("mlp_crossattention.c_proj", "fc2"),
)
_BLOCKS = "text_decoder.transformer.h"
_MAP = KeyMap(
    (
        *_POOLING,
        *(
            (f"{_BLOCKS}.{{i}}.{theirs}.{kind}", f"gated.{{i}}.{ours}.{kind}")
            for theirs, ours in _LAYER
            for kind in ("weight", "bias")
        ),
        (f"{_BLOCKS}.{{i}}.alpha_cattn", "gated.{i}.attention_gate"),
        (f"{_BLOCKS}.{{i}}.alpha_dense", "gated.{i}.mlp_gate"),
    )
)
_MATRICES = (
    "crossattention.q_attn",
    "crossattention.c_attn",
    "crossattention.c_proj",
    "mlp_crossattention.c_fc",
    "mlp_crossattention.c_proj",
)
_SPARE = (r"visual\..*", r".*\.crossattention\.(?:masked_)?bias")


def _is_word(name: str) -> bool:
    """Whether a published name is one of GPT-2's own."""
    return name.startswith("text_decoder.") and not any(part in name for part in ("cross", "alpha_"))


def from_published(theirs: Mapping[str, Tensor], model: Narrator) -> Weights:
    """See :meth:`Narrator.from_published`."""
    if model.decoder.config.positions != "learned":
        raise UserError("the authors' narrators are of GPT-2's kind, and this language model is not")
    words = {name.removeprefix("text_decoder."): value for name, value in theirs.items() if _is_word(name)}
    spare = KeyMap(_MAP.pairs, spare=_SPARE)
    rest = {name: turned(name, value, _MATRICES) for name, value in theirs.items() if not _is_word(name)}
    decoder = {f"decoder.{name}": value for name, value in from_gpt2(words, model.decoder.config).items()}
    found = decoder | spare.ours(rest)
    check_names("this narrator", found, model.state_dict(), optional=(r"encoder\..*",))
    return found


def to_published(model: Narrator) -> Weights:
    """The inverse of :func:`from_published`; the encoder is left out."""
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    words = {name.removeprefix("decoder."): value for name, value in own.items() if name.startswith("decoder.")}
    rest = _MAP.theirs({name: value for name, value in own.items() if not name.startswith("decoder.")})
    return {f"text_decoder.{name}": value for name, value in to_gpt2(words).items()} | {
        name: turned(name, value, _MATRICES) for name, value in rest.items()
    }
