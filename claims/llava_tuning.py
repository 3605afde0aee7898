"""Instruction data makes a model that sees answer: captions alone align the connector and teach no answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims.ledger import Claim, Figure, above, equal
from filmstrip.data.kinds.conversations import prompts
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.narration import COLOURS, PLACES, SIZES, Shape, caption, questions
from filmstrip.evals.answers import answers, normalised
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.teachers import ImageTransformerConfig
from filmstrip.protocols import Batch
from filmstrip.systems.language.llava import Llava, LlavaConfig
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.tokenizers import Words

SIZE, TRAIN, TESTS, BATCH = 32, 1500, 300, 32
STEPS = {"encoder": 250, "words": 150, "stage 1": 200, "stage 2": 350}
SHAPES = NarratedShapes(num_frames=1, size=SIZE)
ASK = Turn("user", "<image>")

CLAIM = Claim(
    systems=("language.llava",),
    finding=__doc__.strip(),
    paper="Liu et al. 2023, Table 4: without instruction data 21.5 of GPT-4's score, with all of it 85.1.",
    here="Pictures of one shape. An encoder learns colours, sizes and places, and a language model of 2 layers of 64 "
    "the captions alone, as text; both are frozen. Stage 1: the connector learns to caption. Stage 2: connector and "
    "language model learn from questions and answers. 300 unseen pictures, questions of colour, size and place; an "
    "answer counts if it is the right one, word for word.",
    baseline="A model with the same stages whose visual tokens are zeros.",
    figures={
        "stage 1": Figure(says="stage 1 alone, right answers, %", paper="21.5"),
        "both": Figure(says="stages 1 and 2", paper="85.1"),
        "blind": Figure(says="stages 1 and 2, blind"),
        "hidden": Figure(says="stages 1 and 2, the picture hidden in the test"),
        **{f"both, {kind}": Figure(says=f"stages 1 and 2, {kind}") for kind in ("colour", "size", "place")},
        **{f"blind, {kind}": Figure(says=f"blind, {kind}") for kind in ("colour", "size", "place")},
    },
    expected=(
        above("both", "stage 1", "instruction data make it answer, by 40 points", by=40.0),
        above("both", "blind", "and it looks: by 20 points over the blind model", by=20.0),
        equal("stage 1", 0.0, "captions alone teach no answers, within 10 points", within=10.0),
    ),
    minutes=4,
)

Drawn = tuple[Tensor, list[tuple[Shape, ...]]]


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, test = draw(TRAIN, seed), draw(TESTS, seed + 10_000)
    rng = np.random.default_rng(seed)
    told = [[(q.kind, q.question, q.answer) for q in questions(s, rng, in_turn=False)] for s in train[1] + test[1]]
    asked = [[one for one in each if one[0] in ("colour", "size", "place")] for each in told]
    captions = [caption(shapes) for shapes in train[1]]
    words = [text for each in asked[:TRAIN] for one in each for text in one[1:]]
    serialiser = Serialiser(Words().fit([*captions, *words, "question: answer:"]), "plain")
    torch.manual_seed(seed)
    config = LlavaConfig(
        encoder=ImageTransformerConfig(
            width=64, depth=2, num_heads=4, num_frames=1, size=SIZE, patch_size=8, linear_init="glorot"
        ),
        decoder=DecoderConfig(vocab_size=serialiser.tokenizer.size, width=64, depth=2, num_heads=4, mlp_dim=128),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector",),
    )
    start = config.build()
    learn_attributes(start.encoder, train, seed)
    about = [[ASK, Turn("assistant", text)] for text in captions]
    alone = [[Turn("user", ""), Turn("assistant", text)] for text in captions]
    talks = [
        ([Turn("user", f"<image>\n{question}"), Turn("assistant", answer)], i)
        for i, each in enumerate(asked[:TRAIN])
        for _, question, answer in each
    ]
    start.decoder.requires_grad_(True)
    learn(start, serialiser, [(turns, i) for i, turns in enumerate(alone)], train[0], "words", seed)
    found = {}
    for name, sees in (("both", True), ("blind", False)):
        model = _stage(replace(config, sees=sees), start)
        learn(model, serialiser, [(turns, i) for i, turns in enumerate(about)], train[0], "stage 1", seed)
        if sees:
            found["stage 1"] = accuracy(model, serialiser, test[0], asked[TRAIN:])[""]
        model = _stage(replace(config, sees=sees, trains=("connector", "decoder")), model)
        learn(model, serialiser, talks, train[0], "stage 2", seed)
        right = accuracy(model, serialiser, test[0], asked[TRAIN:])
        found[name] = right.pop("")
        found |= {f"{name}, {kind}": value for kind, value in right.items()}
        if sees:
            found["hidden"] = accuracy(model, serialiser, test[0], asked[TRAIN:], hidden=True)[""]
    return found


def draw(count: int, seed: int) -> Drawn:
    """Pictures ``N 1 3 H W`` uint8 of one shape each, and the shapes."""
    pictures, scenes = [], []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        scenes.append(SHAPES.scene(rng))
        pictures.append(SHAPES.render(scenes[-1], rng))
    return torch.stack(pictures), scenes


def learn_attributes(encoder: nn.Module, train: Drawn, seed: int) -> None:
    """Teach an encoder the colour, size and place of the shape, from the mean and from every patch."""
    names = (tuple(COLOURS), tuple(SIZES), tuple(range(len(PLACES))))
    labels = torch.tensor([[names[0].index(s.colour), names[1].index(s.size), s.cell] for (s, *_) in train[1]])
    tokens = (SIZE // 8) ** 2
    heads = nn.ModuleList(nn.Linear(64 * tokens, len(each)) for each in names)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        parameter.requires_grad_(True)
    for _ in range(STEPS["encoder"]):
        chosen = torch.randint(TRAIN, (BATCH,), generator=generator)
        seen = encoder(train[0][chosen]).tokens.flatten(1)
        loss = sum(F.cross_entropy(head(seen), labels[chosen, i]) for i, head in enumerate(heads))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _stage(config: LlavaConfig, before: Llava) -> Llava:
    """A model with the weights of the stage before."""
    model = config.build()
    model.load_state_dict(before.state_dict())
    return model


def learn(
    model: Llava, serialiser: Serialiser, talks: list[tuple[list[Turn], int]], pictures: Tensor, stage: str, seed: int
) -> None:
    """Train what the stage trains, on conversations about pictures by their numbers."""
    steps = STEPS[stage]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng((seed, 1))
    model.train()
    for _ in range(steps):
        some = [talks[int(i)] for i in rng.integers(len(talks), size=BATCH)]
        optimiser.zero_grad()
        model(marked(serialiser, some, pictures)).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def marked(serialiser: Serialiser, talks: list[tuple[list[Turn], int]], pictures: Tensor) -> Batch:
    """A batch of conversations."""
    rows = [serialiser.mark(turns) for turns, _ in talks]
    length = max(len(row.ids) for row in rows)
    pad = serialiser.tokenizer.pad
    return {
        "video": pictures[[i for _, i in talks]],
        "text": torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows]),
        "learnt": torch.tensor([row.learnt + [False] * (length - len(row.ids)) for row in rows]),
        "text_length": torch.tensor([len(row.ids) for row in rows]),
    }


def accuracy(
    model: Llava,
    serialiser: Serialiser,
    pictures: Tensor,
    asked: list[list[tuple[str, str, str]]],
    *,
    hidden: bool = False,
) -> dict[str, float]:
    """Right answers in percent, of all questions (by an empty name) and of each kind."""
    right: dict[str, list[bool]] = {}
    flat = [(i, *one) for i, each in enumerate(asked) for one in each]
    with torch.no_grad():
        for begin in range(0, len(flat), 100):
            some = flat[begin : begin + 100]
            visual = model.see(pictures[[i for i, *_ in some]])
            batch = prompts(serialiser, [[Turn("user", f"<image>\n{question}")] for _, _, question, _ in some])
            said = answers(model, visual * 0 if hidden else visual, batch, serialiser, count=12)
            for (_, kind, _, answer), own in zip(some, said):
                right.setdefault(kind, []).append(normalised(own) == normalised(answer))
    every = [value for values in right.values() for value in values]
    return {"": 100 * float(np.mean(every)), **{k: 100 * float(np.mean(v)) for k, v in right.items()}}
