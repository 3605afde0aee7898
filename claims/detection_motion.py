"""What an actor does is told by the frames around a key frame, not by the key frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above, equal
from filmstrip.data.synthetic.actors import Actors
from filmstrip.runs import experiment
from filmstrip.systems.detection import actor_roi
from filmstrip.train.lengths import Steps

STEPS, VIDEOS, TESTS = 250, 250, 60
NETWORKS = {"one frame": actor_roi.tiny_one_frame, "SlowFast": actor_roi.tiny}

CLAIM = Claim(
    systems=("detection.actor_roi",),
    finding=__doc__.strip(),
    paper="Feichtenhofer et al. 2019, AVA, ResNet-50, 4 x 16: frames seen fast beside slow ones are worth 5.2 "
    "points of mean average precision, from 19.0 for the slow network alone to 24.2; a part of AVA's actions, such "
    "as sitting, shows in one frame.",
    here="On moving actors none does: a network of key frames must stay where scores drawn at random are (17.5 in "
    "key frames), and SlowFast on 8 frames must not. 250 steps on 250 videos, 60 unseen ones; annotated boxes; mean "
    "average precision at an overlap of 0.5, in key frames and over tubes that are linked through the video.",
    baseline="The key frame alone.",
    figures={
        "one frame": Figure(says="key frame alone: mAP, %", paper="19.0 (AVA, slow network)"),
        "SlowFast": Figure(says="SlowFast, 8 frames: mAP, %", paper="24.2 (AVA)"),
        "one frame, tubes": Figure(says="key frame alone: mAP of tubes, %"),
        "SlowFast, tubes": Figure(says="SlowFast, 8 frames: mAP of tubes, %"),
    },
    expected=(
        above("SlowFast", "one frame", "frames around tell what is done, by 5.2 points", by=5.2),
        above("SlowFast, tubes", "one frame, tubes", "over tubes as well, by 5.2 points", by=5.2),
        equal("one frame", 17.5, "a key frame stays where random scores are, within 4 points", within=4.0),
    ),
    minutes=4,
    seeds=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name, preset in NETWORKS.items():
        run = preset()
        data = replace(run.data, synthetic=Actors(num_train=VIDEOS, num_test=TESTS))
        run = replace(run, data=data, train=replace(run.train, length=Steps(STEPS), log_every=50), seed=seed)
        metrics = experiment.train(run, folder / preset.__name__).metrics
        found[name], found[f"{name}, tubes"] = 100 * metrics["mAP@0.5"], 100 * metrics["video_mAP@0.5"]
    return found
