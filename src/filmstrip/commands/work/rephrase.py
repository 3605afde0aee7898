"""Captions of a table in other words, by an encoder-decoder of text, into a table that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from filmstrip.commands.rephrase import Rephrase
from filmstrip.commands.work.caption_table import Captioned, Notes, check_out, read_captions, write_table
from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import bars, counted, shown
from filmstrip.runs.loading import default_device
from filmstrip.systems.language.lavila.rephraser import Paraphraser, open_paraphraser, rephrased
from filmstrip.weights.fingerprint import fingerprint


def rephrase(command: Rephrase) -> int:
    """Write the table with paraphrases of its captions.

    Raises:
        UserError: the folder holds no encoder-decoder of text, there are no captions, or the table was begun with
            other settings.
    """
    check_out(command.out)
    if command.temperature == 0 and command.top_p is not None:
        raise UserError("nothing is drawn at a temperature of 0: give a --temperature, or leave out --top-p")
    rows = read_captions(command.table)
    texts = _texts(rows, command)
    paraphraser = open_paraphraser(command.model)
    about = {
        "weights": fingerprint(paraphraser.model),
        "prompt": command.prompt,
        "number": command.number,
        "groups": command.groups,
        "diversity": command.diversity,
        "sampling": repr(_sampling(command)),
        "seed": command.seed,
        "max_tokens": command.max_tokens,
    }
    notes = Notes(command.out, about, what="captions")
    with notes.kept():
        ask(paraphraser, texts, notes, command)
        found = [_with_paraphrases(row, notes) if _is_asked(row, command) else row for row in rows]
        write_table(found, command.out)
    notes.remove()
    count = sum(len(after.synthetic) - len(before.synthetic) for before, after in zip(rows, found))
    print(f"{command.out}: {count} paraphrases of {len(texts)} captions")
    return 0


def ask(paraphraser: Paraphraser, texts: Sequence[str], notes: Notes, command: Rephrase) -> None:
    """Note the paraphrases of those captions that have none yet."""
    model = paraphraser._replace(model=paraphraser.model.to(default_device()))
    left = [(place, text) for place, text in enumerate(texts) if text not in notes.found]
    with shown(bars(Console(stderr=True))), counted("rephrasing", len(left)) as done:
        for start in range(0, len(left), command.batch_size):
            some = left[start : start + command.batch_size]
            said = rephrased(
                [text for _, text in some],
                model,
                keep=command.number,
                groups=command.groups,
                diversity=command.diversity,
                sampling=_sampling(command),
                # What is drawn of a caption depends on its place alone, whatever was rephrased before.
                seeds=[command.seed + (place << 20) for place, _ in some],
                max_tokens=command.max_tokens,
                prefix=command.prompt,
            )
            for (_, text), others in zip(some, said):
                notes.add(text, others)
            done(start + len(some))


def _sampling(command: Rephrase) -> Sampling | None:
    if command.temperature == 0:
        return None
    return Sampling(temperature=command.temperature, top_p=command.top_p)


def _is_asked(row: Captioned, command: Rephrase) -> bool:
    return command.split is None or row.split == command.split


def _texts(rows: Sequence[Captioned], command: Rephrase) -> list[str]:
    """The captions that are to be rephrased, each once.

    Raises:
        UserError: the split has none.
    """
    texts = list(dict.fromkeys(text for row in rows if _is_asked(row, command) for text in row.texts))
    if not texts:
        known = ", ".join(sorted({repr(row.split) for row in rows}))
        raise UserError(f"no row of the split {command.split!r} of {command.table} has a caption; splits are {known}")
    return texts


def _with_paraphrases(row: Captioned, notes: Notes) -> Captioned:
    """A row with what was made of its captions, each text once."""
    more = [*row.synthetic, *(other for text in row.texts for other in notes.found[text])]
    return replace(row, synthetic=tuple(text for text in dict.fromkeys(more) if text not in row.web))
