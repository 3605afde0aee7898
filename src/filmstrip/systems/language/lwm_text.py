"""LWM-Text: a language model whose context grows from 4 thousand to a million tokens, in stages on ever longer books.

Each stage starts from the one before it, with a larger base of its rotary embeddings, on documents about as long
as its rows. Four of the models then learn from conversations, each by itself.
Liu, Yan, Zaharia and Abbeel, "World Model on Million-Length Video and Language with Blockwise RingAttention", ICLR
2025, of which this is the first half: text.

    filmstrip train language.lwm_text:text_32k --data BOOKS --init hf:meta-llama/Llama-2-7b-hf --out runs/text_32k
    filmstrip train language.lwm_text:text_128k --data BOOKS --init runs/text_32k --out runs/text_128k
    filmstrip train language.lwm_text:ladder --data BOOKS --init hf:meta-llama/Llama-2-7b-hf --out runs/lwm
    filmstrip data questions BOOKS --writer runs/lwm/text_32k --context 131072 --out questions
    filmstrip train language.lwm_text:chat_128k --data TALK.jsonl questions --init runs/lwm/text_128k --out runs/chat
    filmstrip eval runs/chat --protocol needles --lengths 4000 32000 128000
    filmstrip train language.lwm_text:tiny

``torchrun --nproc-per-node 8 -m filmstrip train ... --train.context 8`` shares the tokens of every row among eight
processes (ring attention); ``--train.shard fsdp`` shards weights.

The network is LLaMA's in ``models/decoder.py`` and the loss is in ``objectives/text.py``: text is data like any
other here, and a stage is an ordinary run. Documents are filtered by their numbers of tokens, put one after another
and cut at the length, without a mask between them (``data/kinds/documents.py``). Conversations share rows and see
themselves alone. Seven rows of them stand beside three that hold questions about a long document
(``text/questions.py``), and each row counts once: of a document's tokens about a hundredth is learnt, and so it would
count next to nothing by tokens, or as one of many conversations.

Where we deviate: the paper says 4M tokens a batch, which are 2^22 here, so that rows fill it; how documents were
measured is not said, and here their tokens are counted. Nor are the mask between conversations and what losses are
averaged over; that rows count alike is what the authors' other code does, and why the paper would keep texts with
few learnt tokens in rows of their own. Rates, steps and bases are the paper's, the optimiser and its
weight decay those of the authors' code. The base is that of each stage's table: the text says that it grows in
proportion to the length, and the table's does not.

The paper reports near perfect retrieval of a number in up to a million tokens, and 0.84 at one of four numbers; its
MMLU falls from 0.41 to 0.35 on the way. We measured none of these. At small size (``filmstrip claims NAME``, three
seeds each): 99% of short answers that share rows with long texts are learnt with the mask and the weights, 98% with
the mask alone, 34% with neither (``lwm_packing``); stages reach a loss of 0.02 nats of an answer at the full length
where as much computation on full length alone stays at 1.97, near chance (``lwm_progressive``); what was learnt in
short texts is kept (``lwm_short_kept``); of two numbers as many are found as of one, against the paper
(``lwm_multi_needle``); and nine rows of talk in ten cost 10 points of what is found in documents (``lwm_mix``).
"""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.kinds.documents import Documents
from filmstrip.data.synthetic.haystack import Haystack
from filmstrip.evals.perplexity import Perplexity
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.text import TextModelConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant

LLAMA_2_7B = DecoderConfig(
    vocab_size=32_000, width=4096, depth=32, num_heads=32, mlp_dim=11_008, norm_eps=1e-5, rope_base=10_000.0
)
TOKENS = 2**22
"""Number of tokens in a step of every stage."""
CHAT = (7.0, 3.0)
"""Rows of conversations and of questions about long documents: the order of the two paths after ``--data``."""
LADDERS = {
    "ladder": ("text_32k", "text_128k", "text_256k", "text_512k", "text_1m"),
    "tiny_ladder": ("tiny", "tiny_long"),
}
"""Stages that are trained one after another, by the name of the whole."""


def _run(data: Data, objective: TextModelConfig, *, steps: int, warmup: int) -> Run:
    return Run(
        data=data,
        objective=objective,
        optim=AdamW(lr=4e-5, betas=(0.9, 0.95), weight_decay=0.1, schedule=Constant(warmup=Steps(warmup))),
        train=Loop(length=Steps(steps), checkpoint=True),
        evals=(Perplexity(),),
    )


def _text(
    length: int, *, base: float, begins_at: float, documents: tuple[int, int | None], steps: int, warmup: int
) -> Run:
    data = Data(
        reads=Documents(length=length, min_tokens=documents[0], max_tokens=documents[1]),
        batch_size=TOKENS // length,
        augment=Augment(mirror=0.0),
    )
    objective = TextModelConfig(decoder=replace(LLAMA_2_7B, rope_base=base), begins_at_base=begins_at)
    return _run(data, objective, steps=steps, warmup=warmup)


def _chat(length: int, *, base: float) -> Run:
    data = Data(
        reads=Conversations(visuals=0, format="lwm", max_length=length, pack=length),
        batch_size=TOKENS // length,
        weights=CHAT,
        augment=Augment(mirror=0.0),
    )
    objective = TextModelConfig(decoder=replace(LLAMA_2_7B, rope_base=base), begins_at_base=base, average="rows")
    return _run(data, objective, steps=300, warmup=25)


def tiny() -> Run:
    """Short texts with numbers of cities, from scratch; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Haystack(num_train=200, num_test=20, words=60, digits=2, cities=10),
            reads=Documents(length=64),
            batch_size=16,
        ),
        objective=TextModelConfig(decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128)),
        optim=AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        train=Loop(length=Steps(100)),
        evals=(Perplexity(),),
    )


def tiny_long() -> Run:
    """From ``tiny``: rows four times as long, and a larger base."""
    run = tiny()
    data = replace(run.data, reads=Documents(length=256), batch_size=4)
    decoder = replace(run.objective.decoder, rope_base=1e5)
    objective = replace(run.objective, decoder=decoder, begins_at_base=run.objective.decoder.rope_base)
    return replace(run, data=data, objective=objective)


def tiny_chat() -> Run:
    """The same texts as conversations that share rows."""
    run = tiny()
    reads = Conversations(visuals=0, format="lwm", max_length=256, pack=256)
    objective = replace(run.objective, average="rows")
    return replace(run, data=replace(run.data, reads=reads, batch_size=4, weights=CHAT), objective=objective)


def text_32k() -> Run:
    """From LLaMA-2: 1,200 steps on books of 10 to 100 thousand tokens."""
    return _text(2**15, base=1e6, begins_at=1e4, documents=(10_000, 100_000), steps=1200, warmup=100)


def text_128k() -> Run:
    """From ``text_32k``: 3,000 steps on books of 100 to 200 thousand tokens."""
    return _text(2**17, base=1e7, begins_at=1e6, documents=(100_000, 200_000), steps=3000, warmup=200)


def text_256k() -> Run:
    """From ``text_128k``: 3,000 steps on books of 200 to 500 thousand tokens."""
    return _text(2**18, base=1e7, begins_at=1e7, documents=(200_000, 500_000), steps=3000, warmup=200)


def text_512k() -> Run:
    """From ``text_256k``: 720 steps on books of half a million to a million tokens."""
    return _text(2**19, base=2.5e7, begins_at=1e7, documents=(500_000, 1_000_000), steps=720, warmup=50)


def text_1m() -> Run:
    """From ``text_512k``: 450 steps on books of more than a million tokens."""
    return _text(2**20, base=5e7, begins_at=2.5e7, documents=(1_000_000, None), steps=450, warmup=25)


def chat_128k() -> Run:
    """From ``text_128k``: 300 steps on conversations and on questions about long documents, about 7 to 3."""
    return _chat(2**17, base=1e7)


def chat_256k() -> Run:
    """As ``chat_128k``, from ``text_256k``."""
    return _chat(2**18, base=1e7)


def chat_512k() -> Run:
    """As ``chat_128k``, from ``text_512k``."""
    return _chat(2**19, base=2.5e7)


def chat_1m() -> Run:
    """As ``chat_128k``, from ``text_1m``."""
    return _chat(2**20, base=5e7)
