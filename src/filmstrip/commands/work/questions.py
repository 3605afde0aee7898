"""Questions about long texts that a language model writes, as conversations of a long context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from filmstrip.commands.data import Questions
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError
from filmstrip.files import append_line, write_json, write_text
from filmstrip.inference import device_of, inference
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import bars, counted, shown
from filmstrip.runs.text_models import TextModelWithTokenizer, load_text_model, written
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.documents import read_documents
from filmstrip.text.questions import Chunk, Pair, Writer, chunks_of, joined, rules
from filmstrip.text.tokenizers import TextTokenizer, tokenizer_named
from filmstrip.weights.fingerprint import fingerprint

RULES = "rules"
"""Name of the writer that is no model."""
OUT, PAIRS, ABOUT = "dialogues.jsonl", "pairs.jsonl", "questions.json"
"""Files of the output folder: the conversations, the pair of each chunk, and what the pairs depend on."""
_INSTRUCTION = (
    "Write one question that can be answered from the text above alone, about a detail of it, and its short answer. "
    'Write "Question:" before the question and "Answer:" before the answer.'
)
_EXAMPLE = (
    "Text: The mill by the river was built in 1820 and burnt down forty years later.\n\n"
    "Question: When was the mill by the river built?\nAnswer: It was built in 1820.\n\n"
)
"""Text that a model which only goes on with texts reads first."""


def write_questions(command: Questions) -> int:
    """Write the conversations; returns 0.

    Raises:
        UserError: there are no documents, none is as long as a chunk, the writer is no language model, the folder was
            begun with other documents or settings, or there is nothing to ask.
    """
    writer, tokenizer, about = _writer(command)
    serialiser = Serialiser(tokenizer, command.format, visuals=False)
    chunks, left = _chunks(command, tokenizer)
    notes = _Notes(command.out, about | {"chunks": len(chunks), "text": _fingerprint(chunks)})
    with keeping(notes.said):
        _ask(writer, chunks, notes, command)
    pairs = [notes.found[i] for i in range(len(chunks))]
    total, learnt, records = 0, 0, []
    for split in dict.fromkeys(chunk.split for chunk in chunks):
        numbers = [i for i, chunk in enumerate(chunks) if chunk.split == split]
        own, asked = [chunks[i] for i in numbers], [pairs[i] for i in numbers]
        seed = derive_seed("questions", command.seed, split)
        for example in joined(own, asked, command.context, serialiser, seed):
            turns = [{"from": "human" if t.role == "user" else "gpt", "value": t.text} for t in example.turns]
            name = f"{own[example.chunks[0]].name} to {own[example.chunks[-1]].name}"
            records.append({"id": name, **({"split": split} if split else {}), "conversations": turns})
            total, learnt = total + example.tokens, learnt + example.learnt
    if not records:
        raise UserError(
            f"nothing was asked about the {len(chunks)} chunks of {command.documents}: give another writer "
            "(--writer), or more room for questions (--max-tokens)"
        )
    write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), command.out / OUT)
    without = sum(pair is None for pair in pairs)
    print(
        f"{command.out}: {len(records)} conversations of up to {command.context} tokens, {len(chunks)} chunks, "
        f"{without} of them without a question; {100 * learnt / total:.2f}% of tokens are learnt"
        + (f"; {left} tokens at ends of documents are left out" if left else "")
    )
    return 0


class _Notes:
    """The pairs that were written so far, a line for each, from which an interrupted command resumes.

    Raises:
        UserError: the folder was begun with other documents, another writer or other settings.
    """

    def __init__(self, out: Path, about: dict[str, object]) -> None:
        self.path = out / PAIRS
        self.found: dict[int, Pair | None] = {}
        if out.exists() and any(out.iterdir()) and not (out / ABOUT).exists():
            raise UserError(f"{out} holds something else: give another --out")
        if (out / ABOUT).exists():
            before = json.loads((out / ABOUT).read_text(encoding="utf-8"))
            if changed := [name for name in about if before.get(name) != about[name]]:
                raise UserError(
                    f"{out} was begun with another {' and another '.join(changed)}: repeat that command, or give "
                    "another --out"
                )
        else:
            write_json(about, out / ABOUT)
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    number, pair = json.loads(line)
                except ValueError:  # torn by a crash: it is asked for again
                    continue
                self.found[number] = None if pair is None else Pair(*pair)

    def add(self, number: int, pair: Pair | None) -> None:
        """Note what was written of a chunk, on disk."""
        append_line(json.dumps([number, pair], ensure_ascii=False), self.path)
        self.found[number] = pair

    def said(self) -> str:
        """What is kept when the command is stopped."""
        if not self.found:
            return NOTHING_KEPT
        return f"{self.path} keeps what was asked about {len(self.found)} chunks: the same command resumes"


def _fingerprint(chunks: Sequence[Chunk]) -> int:
    return derive_seed("chunks", *(chunk.text for chunk in chunks))


def _chunks(command: Questions, tokenizer: TextTokenizer) -> tuple[list[Chunk], int]:
    chunks: list[Chunk] = []
    left = 0
    for document in read_documents(command.documents.expanduser(), command.column):
        own, rest = chunks_of(document.name, document.text, document.split, command.chunk, tokenizer)
        chunks, left = [*chunks, *own], left + rest
    if not chunks:
        raise UserError(
            f"no document in {command.documents} has half as many tokens as a chunk ({command.chunk}): shorten "
            "chunks (--chunk)"
        )
    return chunks, left


def _ask(writer: Writer, chunks: Sequence[Chunk], notes: _Notes, command: Questions) -> None:
    """Note a pair for each chunk that has none yet; a chunk's does not depend on which others are asked about."""
    missing = [i for i in range(len(chunks)) if i not in notes.found]
    with shown(bars(Console(stderr=True))), counted("asking", len(missing)) as done:
        for start in range(0, len(missing), command.batch_size):
            some = missing[start : start + command.batch_size]
            seeds = [command.seed + (i << 20) for i in some]
            for number, pair in zip(some, writer([chunks[i] for i in some], seeds)):
                notes.add(number, pair)
            done(start + len(some))


def _writer(command: Questions) -> tuple[Writer, TextTokenizer, dict[str, object]]:
    """What writes questions, the tokenizer that counts, and what the questions depend on.

    Raises:
        UserError: there is no such model, or a rule was given no tokenizer.
    """
    about: dict[str, object] = {"writer": command.writer, "chunk": command.chunk, "seed": command.seed}
    counts = None if command.tokenizer is None else tokenizer_named(command.tokenizer)
    if command.writer == RULES:
        if counts is None:
            raise UserError(
                "a rule has no tokenizer of its own: say what counts tokens (--tokenizer bytes, or a FOLDER)"
            )
        texts = [document.text for document in read_documents(command.documents.expanduser(), command.column)]
        return rules, counts.fit(texts), about | {"tokenizer": command.tokenizer}
    model = load_text_model(command.writer)
    about |= {
        "weights": fingerprint(model.model),
        "tokenizer": command.tokenizer,
        "max_tokens": command.max_tokens,
        "temperature": command.temperature,
    }
    tokenizer = model.tokenizer if counts is None else counts.fit(())
    sampling = Sampling(temperature=command.temperature)
    return partial(_by_model, model, sampling, command.max_tokens), tokenizer, about


def _by_model(
    asked: TextModelWithTokenizer, sampling: Sampling, most: int, chunks: Sequence[Chunk], seeds: Sequence[int]
) -> list[Pair | None]:
    """The question that a model writes of each chunk, after ``Question:``, and the answer that it gives, after
    ``Answer:``; none where one of them is empty, or longer than may be."""
    begun = [_prompt(asked, chunk.text.strip()) for chunk in chunks]
    questions = _line(asked, begun, "Question:", sampling, most, seeds)
    known = [i for i, question in enumerate(questions) if question]
    texts = [[*begun[i], *asked.tokenizer.encode(f"Question: {questions[i]}\n")] for i in known]
    answers = _line(asked, texts, "Answer:", sampling, most, [seeds[i] + 1 for i in known])
    found: list[Pair | None] = [None] * len(chunks)
    for i, answer in zip(known, answers):
        question = questions[i]
        if question and answer:
            found[i] = Pair(question, answer)
    return found


def _prompt(asked: TextModelWithTokenizer, text: str) -> list[int]:
    """The ids after which a model writes a question."""
    if asked.serialiser is not None:
        return asked.serialiser.prompt([Turn("user", f"{text}\n\n{_INSTRUCTION}")])
    start = [] if asked.tokenizer.start is None else [asked.tokenizer.start]
    return [*start, *asked.tokenizer.encode(f"{_EXAMPLE}Text: {text}\n\n")]


def _line(
    asked: TextModelWithTokenizer,
    prompts: Sequence[Sequence[int]],
    name: str,
    sampling: Sampling,
    most: int,
    seeds: Sequence[int],
) -> list[str | None]:
    """What a model writes behind a name, up to the end of the line or of the text; none where neither comes."""
    if not prompts:
        return []
    tokenizer = asked.tokenizer
    stops: list[tuple[int, ...]] = [(tokenizer.end,)]
    if asked.serialiser is not None:
        stops.append(asked.serialiser.stop)
    named = [[*prompt, *tokenizer.encode(name)] for prompt in prompts]
    with inference(asked.model):
        rows = written(
            asked.model,
            named,
            stops=stops,
            pad=tokenizer.pad,
            count=most,
            device=device_of(asked.model),
            sampling=sampling,
            # Row i draws from its seed plus i.
            seed=(torch.tensor(seeds) - torch.arange(len(seeds))).to(device_of(asked.model)),
        )
    found: list[str | None] = []
    for row in rows:
        line, ended, _ = tokenizer.decode(row).strip().partition("\n")
        found.append((line.strip() or None) if ended or len(row) < most else None)
    return found
