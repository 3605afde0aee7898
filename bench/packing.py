"""Conversations that share rows of the language model against a padded row each: how full rows are, and steps.

    python bench/packing.py
    python bench/packing.py --rooms 512 --questions halving --rounds 3

Questions about videos of NarratedShapes: one a conversation; 1 to 8, each as often; or ``halving``, 1 in half of the
conversations, 2 in a quarter, 4 and 8 in an eighth each. A video takes 16 tokens. A step is a forward and a backward
pass of LLaVA with a frozen encoder, of the same conversations in both, so that the losses are equal. Tokens are those
that are no padding, and seconds those of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from filmstrip import systems
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.decoder import DecoderConfig
from filmstrip.protocols import Batch, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.language import with_visual_tokens
from timing import alternate

DECODER = DecoderConfig(vocab_size=128, width=256, depth=6, num_heads=4, mlp_dim=704)


QUESTIONS = {"one": (1,), "1 to 8": tuple(range(1, 9)), "halving": (1, 2, 1, 4, 1, 2, 1, 8)}
"""Numbers of questions of conversations, one after another and again."""


def joined(media: Path, counts: tuple[int, ...], folder: Path) -> Path:
    """A file of conversations about a video each, of so many questions."""
    about = defaultdict(list)
    for line in (media / "dialogues.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["split"] == "train":
            about[record["video"]].append(record)
    lines = []
    for number, records in enumerate(about.values()):
        said = [turn for record in records[: counts[number % len(counts)]] for turn in record["conversations"]]
        own = [said[0], *({**turn, "value": turn["value"].replace("<video>\n", "")} for turn in said[1:])]
        lines.append(json.dumps({**records[0], "conversations": own}))
    path = folder / "dialogues.jsonl"
    path.write_text("\n".join(lines))
    return path


def opened(path: Path, media: Path, room: int, tokens: int) -> tuple[Objective, TrainLoader, float]:
    """The model, its batches of about so many tokens, and how full all rows are."""
    run = systems.find("language.llava")
    reads = replace(run.data.reads, media=media, max_length=room, pack=room)
    data = replace(run.data, path=path, reads=reads, batch_size=max(1, tokens // room), num_workers=0)
    objective = replace(run.objective, decoder=DECODER, trains=("connector", "decoder"), untrained_parts=True)
    run: Run = with_visual_tokens(replace(run, data=data, objective=objective))
    source = open_source(run.data)
    loader = TrainLoader(source, run.data, seed=0)
    torch.manual_seed(0)
    packing = source.packing(run.data, 0)
    assert packing is not None
    return run.bound(source.info(run.data.train_split)).objective.build(), loader, packing.fill


def stepper(model: Objective, batches: list[Batch]):
    def step() -> None:
        for batch in batches:
            model(batch).total.backward()
            model.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--tokens", type=int, default=4096, help="about as many in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("| questions | row | fill, a row each | fill, shared | tokens/s, a row each | tokens/s, shared | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    media = NarratedShapes(num_train=600, num_test=40, num_frames=8, size=32, max_shapes=3).generate()
    with TemporaryDirectory() as folder:
        for questions in args.questions:
            path = joined(media, QUESTIONS[questions], Path(folder))
            for room in args.rooms:
                model, loader, fill = opened(path, media, room, args.tokens)
                shared = list(islice(loader.stream(0), 2))
                alone = [{k: v for k, v in batch.items() if k not in ("document", "step_means")} for batch in shared]
                used = sum(int((batch["document"] > 0).sum()) for batch in shared)
                padded = sum(len(b["text"]) * (b["text"].shape[1] + 15) for b in shared)
                both = {"shared": stepper(model, shared), "alone": stepper(model, alone)}
                seconds = alternate(both, args.rounds, time.process_time)
                rates = {name: used / value for name, value in seconds.items()}
                print(
                    f"| {questions} | {room} | {used / padded:.1%} | {fill:.1%} | {rates['alone']:,.0f} "
                    f"| {rates['shared']:,.0f} | {rates['shared'] / rates['alone']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
