"""A language model finds a number anywhere in a text, and fewer of them where it is asked for two."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from claims.real_weights import SMOLLM2
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.haystack import Haystack
from filmstrip.evals.needles import Needles
from filmstrip.objectives.text import TextModelConfig
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.hub import hub_decoder, hub_weights
from filmstrip.text.tokenizers import Pretrained

LENGTHS, DEPTHS, ROUNDS = (200, 800), 3, 2
ASKED = {"1 of 1": (1, 1), "2 of 2": (2, 2), "1 of 4": (4, 1), "2 of 4": (4, 2)}
"""Numbers that a text hides, and how many of them are asked for."""
PAPER = {"1 of 1": "near 100", "2 of 2": "84", "1 of 4": "97", "2 of 4": "84"}

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024: a single number is found nearly always, at every depth of up to a million tokens "
    "(figure); of several, at 32 thousand tokens, 0.84 (2 of 2), 0.97 (1 of 4) and 0.84 (2 of 4).",
    here="SmolLM2-135M-Instruct, a real model of 8,192 tokens that `make real_weights` takes from a package, as it "
    "is: numbers of five digits among sentences of a small grammar, texts of 200 and 800 tokens, three depths, two "
    "texts each. A guess is one of 90,000.",
    baseline="The same model asked for one number where it is asked for two.",
    figures={
        **{name: Figure(says=f"{name}: numbers found, %", paper=PAPER[name]) for name in ASKED},
        **{f"1 of 1, {length}": Figure(says=f"1 of 1 in {length} tokens, %") for length in LENGTHS},
    },
    expected=(
        above("1 of 1", 80, "a single number is found nearly always"),
        above("1 of 1", "2 of 2", "asked for two it finds fewer"),
        above("1 of 4", "2 of 4", "also where others are hidden"),
    ),
    needs=(SMOLLM2,),
    minutes=7,
    analysis="A single number is always found. Asked for two, this small model names one of them; among four it is "
    "right about half of the time whether it is asked for one or two, so that the last difference is not shown.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    source = str(SMOLLM2)
    model = TextModelConfig(decoder=hub_decoder(source)).build()
    model.load_state_dict(
        {name: weight.float() for name, weight in model.from_transformers(hub_weights(source)).items()}
    )
    reads = Conversations(visuals=0, format="hub", tokenizer=Pretrained(folder=source))
    data = Data(path=Haystack(num_train=1, num_test=1).generate(folder / "texts"), reads=reads)
    subject = Subject(objective=model.eval(), source=open_source(data), data=data, device=torch.device("cpu"))
    found = {}
    for name, (needles, asked) in ASKED.items():
        wanted = Needles(
            lengths=LENGTHS,
            depths=DEPTHS,
            rounds=ROUNDS,
            needles=needles,
            asked=asked,
            digits=5,
            batch_size=1,
            seed=seed,
        )
        values = dict(wanted(subject))
        found[name] = 100 * values["found"]
        if needles == 1:
            found |= {f"{name}, {length}": 100 * values[f"found/{length}"] for length in LENGTHS}
    return found
