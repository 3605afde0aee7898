"""A network in which each task helps the other finds more moments after as many steps than a plain set prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above
from filmstrip.data.synthetic.video_queries import VideoQueries
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.grounding import moment_detr, videolights
from filmstrip.train.lengths import Steps

STEPS, LONGER, RATE, NOISE, VIDEOS, TESTS = 200, 500, 3e-3, 0.5, 150, 100
"""``LONGER`` are the baseline's steps in as much time."""
ARMS = {
    "whole": (videolights, STEPS, {}),
    "no feedback": (videolights, STEPS, {"feedback_weight": 0.0}),
    "moments": (videolights, STEPS, {"saliency_weight": 0.0}),
    "plain": (moment_detr, STEPS, {}),
    "plain, longer": (moment_detr, LONGER, {}),
}
"""Each network with its steps, and weights of losses that are taken off."""
SAYS = {
    "whole": "VideoLights",
    "no feedback": "without the feedback",
    "moments": "without any loss of highlights",
    "plain": "Moment-DETR",
    "plain, longer": f"Moment-DETR, {LONGER} steps",
}
MEASURES = {
    "R1@0.5": "recall of the first moment at an overlap of 0.5, %",
    "mAP": "mAP of moments, %",
    "HIT@1": "hits of the best clip, %",
}
PAPER = {
    "whole, R1@0.5": "68.3 (QVHighlights, test, BLIP-2's features)",
    "whole, mAP": "46.5",
    "whole, HIT@1": "68.9",
    "plain, R1@0.5": "52.9",
    "plain, mAP": "30.7",
    "plain, HIT@1": "55.6",
}
LEARNT = {
    f"{arm}, {measure}": f"{SAYS[arm]}: {says}"
    for arm in ARMS
    for measure, says in MEASURES.items()
    if (arm, measure) != ("moments", "HIT@1")
}

CLAIM = Claim(
    systems=("grounding.videolights",),
    finding=__doc__.strip(),
    paper="Paul et al. 2024: features refined by the query, fusion of video and words in both directions, and scores "
    "of highlights by what the likeliest moment looks like; the released networks find more of both than Moment-DETR "
    "(Lei et al. 2021), and each part adds to it.",
    here=f"Generated videos of 8 to 45 clips whose stand-in features are noise (standard deviation {NOISE}) and, "
    "within two to four moments, a vector of the motion, more of it in clips that raters score higher. VideoLights "
    f"(one layer of fusion, one of the encoder, two of the decoder, 48 channels), {STEPS} steps of 16 of the queries "
    f"of {VIDEOS} videos at {RATE}; about 300 queries of {TESTS} unseen videos.",
    baseline=f"Moment-DETR (two layers and two, 48 channels) for as many steps, and for {LONGER}, which take as "
    "long; VideoLights without the loss of scores by the likeliest moment, and without highlights.",
    figures={name: Figure(says=says, paper=PAPER.get(name, "")) for name, says in LEARNT.items()},
    expected=(
        above("whole, R1@0.5", "plain, R1@0.5", "more moments than Moment-DETR finds, by 10 points", by=10.0),
        above("whole, R1@0.5", "plain, longer, R1@0.5", "and more than it finds in as much time"),
        above("whole, HIT@1", "plain, HIT@1", "more highlights, too"),
        above("whole, R1@0.5", "moments, R1@0.5", "highlights help moments"),
        above("whole, R1@0.5", "no feedback, R1@0.5", "and so does the feedback"),
        above("whole, HIT@1", "no feedback, HIT@1", "which helps highlights"),
    ),
    minutes=4,
    analysis="Far ahead of Moment-DETR after as many steps, in each of three seeds, of moments and of highlights. "
    "How many moments 200 steps teach differs from seed to seed (56 to 88%; Moment-DETR in as much time 22, 32 and "
    "72%), so that three seeds leave the other differences open: without losses of highlights fewer are found in "
    "each (8, 44 and 15%), and without the feedback fewer in one and more in two.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for arm in ARMS:
        metrics = experiment.train(small(arm, seed), folder / arm).metrics
        names = {f"{arm}, {name}": name for name in MEASURES}
        found |= {figure: 100 * metrics[name] for figure, name in names.items() if figure in LEARNT}
    return found


def small(arm: str, seed: int) -> Run:
    """One of the networks."""
    system, steps, weights = ARMS[arm]
    run = system.tiny()
    reads = replace(run.data.reads, noise=NOISE, seed=seed)
    return replace(
        run,
        data=replace(run.data, synthetic=VideoQueries(num_train=VIDEOS, num_test=TESTS), reads=reads),
        objective=replace(run.objective, **weights),
        optim=replace(run.optim, lr=RATE),
        train=replace(run.train, length=Steps(steps), log_every=100),
        seed=seed,
    )
