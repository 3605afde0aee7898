"""How and when an object will be touched is told by the frames before the last one, not by that frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above
from filmstrip.data.synthetic.reaches import Reaches
from filmstrip.runs import experiment
from filmstrip.systems.detection import next_contact
from filmstrip.train.lengths import Steps

STEPS, VIDEOS, TESTS, RATE = 300, 300, 60, 4e-3
NETWORKS = {"one frame": next_contact.tiny_one_frame, "clip": next_contact.tiny}
MEASURES = {"noun": "noun", "noun_verb": "noun and verb", "noun_ttc": "noun and time", "overall": "all three"}

CLAIM = Claim(
    systems=("detection.next_contact",),
    finding=__doc__.strip(),
    paper="Ragusa et al. 2023: a branch that sees 16 frames beside the last one raises StillFast's top-5 mAP. "
    "Rajasegaran et al. 2025, Ego4D v1, Toto-large: noun 15.20, with verb 6.75, with time 5.41, all 2.70.",
    here=f"Hands that reach for one of five objects. A narrow ViT sees 8 frames, or the last one; {STEPS} steps "
    f"of 16 on {VIDEOS} videos with two annotated frames each, {TESTS} unseen ones. Top-5 mAP.",
    baseline="The last frame alone.",
    figures={
        f"{name}, {key}": Figure(says=f"{name}: {says}, top-5 mAP, %")
        for name in NETWORKS
        for key, says in MEASURES.items()
    },
    expected=(
        above("clip, noun_verb", "one frame, noun_verb", "the clip tells the verb"),
        above("clip, noun_ttc", "one frame, noun_ttc", "the clip tells the time"),
        above("clip, noun", "one frame, noun", "the clip tells which object"),
    ),
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name, preset in NETWORKS.items():
        run = preset()
        run = replace(
            run,
            data=replace(run.data, synthetic=Reaches(num_train=VIDEOS, num_test=TESTS)),
            optim=replace(run.optim, lr=RATE),
            train=replace(run.train, length=Steps(STEPS), log_every=50),
            seed=seed,
        )
        metrics = experiment.train(run, folder / preset.__name__).metrics
        found |= {f"{name}, {key}": 100 * metrics[f"{key}_mAP"] for key in MEASURES}
    return found
