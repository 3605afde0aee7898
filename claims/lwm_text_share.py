"""A language model that goes on with pictures forgets its text, unless some of each batch is text alone."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, below
from claims.streams import Chain, Pictures, batch_of, nats_of_codes, new_model
from claims.streams import train as learn
from filmstrip.protocols import Batch
from filmstrip.systems.language.lwm import LWM

SIDE, NOISE = 4, 0.3
BATCH, LENGTH, TESTED = 32, 24, 200
TEXT_STEPS, STEPS = 300, 400
SHARES = (0, 16)

CLAIM = Claim(
    systems=("language.lwm",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024: 16% of each batch of the first two vision stages is text alone, to preserve what the "
    "model knew of text. Not ablated.",
    here="300 steps of 32 texts in which two words may follow each, then 400 of 32 pairs of pictures and captions "
    "(as in lwm_order) of which none or 5 (16%) are replaced by such texts. 2 layers, 64 wide; 200 new texts and "
    "pictures.",
    baseline="No text in the second part, with the same pictures otherwise.",
    figures={
        "before": Figure(says="before pictures: nats of a word (0.693 at best)", digits=3),
        **{f"text {share}": Figure(says=f"after, {share}% text: nats of a word", digits=3) for share in SHARES},
        **{f"vision {share}": Figure(says=f"after, {share}% text: nats of a code", digits=3) for share in SHARES},
    },
    expected=(
        below("before", 0.9, "text was learnt before"),
        above("text 0", "before", "without text it is forgotten", by=0.3),
        below("text 16", 0.9, "with 16% of text it is kept"),
        below("vision 16", "vision 0", "pictures are learnt nearly as well", by=-0.05),
    ),
    analysis="Without text what was learnt of it is lost altogether (0.70 to 9.6 to 11.7 nats a word); with 16% "
    "of it nothing is (0.71). Of pictures two seeds learn as much with text as without, the third 0.15 nats of a "
    "code less, so that the limit of 0.05 is not shown: 400 steps are few, and in 16% fewer pictures less is "
    "learnt.",
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    world, chain = Pictures.drawn(SIDE, NOISE, generator), Chain.drawn(generator)
    fresh = torch.Generator().manual_seed(10_000 + seed)
    tested = texts(chain, TESTED, fresh)
    names = world.named(TESTED, fresh)
    pictures = world.pairs(names, world.codes(names, fresh), [False] * TESTED)
    model = new_model(seed, SIDE)
    learn(model, lambda g: texts(chain, BATCH, g), steps=TEXT_STEPS, seed=seed)
    found = {"before": nats_of_words(model, tested)}
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    for share in SHARES:

        def mixed(g: torch.Generator, share: int = share) -> Batch:
            own = world.named(BATCH, g)
            codes = world.codes(own, g)
            first = (torch.rand(BATCH, generator=g) < 0.5).tolist()
            count = round(share / 100 * BATCH)
            batch = world.pairs(own, codes, first)
            rows = [(row[:n].tolist(), 1) for row, n in zip(batch["text"], batch["text_length"].tolist())]
            rows[:count] = [(chain.text(LENGTH, g), 1) for _ in range(count)]
            videos = [codes[i, :0] if i < count else codes[i] for i in range(BATCH)]
            return batch_of(rows, videos, SIDE * SIDE)

        model.load_state_dict(begun)
        learn(model, mixed, steps=STEPS, seed=seed + 1)
        found[f"text {share}"] = nats_of_words(model, tested)
        found[f"vision {share}"] = nats_of_codes(model, pictures)
    return found


def texts(chain: Chain, count: int, generator: torch.Generator) -> Batch:
    """A batch of texts alone."""
    none = torch.zeros(0, SIDE * SIDE, dtype=torch.int64)
    return batch_of([(chain.text(LENGTH, generator), 1) for _ in range(count)], [none] * count, SIDE * SIDE)


def nats_of_words(model: LWM, batch: Batch) -> float:
    """Mean nats of a word after the first of each text."""
    with torch.no_grad():
        text = batch["text"]
        losses, _ = model.decoder.losses(model.decoder(text[:, :-1]).hidden, text[:, 1:])
        return float(losses[:, 1:-1].mean())  # the first word is any, and the end comes after a number of words
