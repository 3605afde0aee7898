"""An agent that learns in imagination needs fewer steps of its environment than one that learns from steps alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above
from filmstrip.evals.returns import Returns
from filmstrip.runs.config import Run
from filmstrip.runs.experiment import train
from filmstrip.systems import find
from filmstrip.train.lengths import Steps

STEPS, PREFILL, EPISODES = 4_000, 500, 10
RATIO = 0.5
"""Updates of Dreamer for each step in the environment; DrQ has one for each."""

CLAIM = Claim(
    systems=("control.dreamer",),
    finding=__doc__.strip(),
    paper="Hafner et al. 2023: at equal steps of the environment, DreamerV3 has higher returns than DrQ-v2 over the "
    "control suite from pixels (curves).",
    here=f"`orbit` at 32 x 32 pixels by its true reward: {PREFILL} random steps, then {STEPS} of each agent's own, "
    f"with {RATIO} updates of Dreamer (preset `point`) and one of DrQ for each. True returns of {EPISODES} other "
    "episodes, of 50 steps that earn 1 at most each.",
    baseline="DrQ after as many steps of the environment, and actions at random.",
    figures={
        "dreamer": Figure(says="true return of Dreamer"),
        "drq": Figure(says="of DrQ after as many steps"),
        "expert": Figure(says="of the scripted expert"),
        "random": Figure(says="of random actions"),
        "share": Figure(says="Dreamer's return, % of the expert's", digits=0),
    },
    expected=(
        above("dreamer", "random", "it learns the task", by=5.0),
        above("dreamer", "drq", "it learns it from fewer steps than DrQ"),
        above("share", 90.0, "it comes near the expert"),
    ),
    minutes=36,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    def returns(name: str, run: Run, updates: float) -> dict[str, float]:
        reads = run.data.reads
        reads = replace(reads, env=replace(reads.env, name="orbit"), prefill=PREFILL, updates_per_step=updates)
        steps = int(STEPS * updates)
        loop = replace(run.train, length=Steps(steps), log_every=100, save_every=steps, eval_every=None)
        run = replace(
            run, data=replace(run.data, reads=reads), train=loop, seed=seed, evals=(Returns(episodes=EPISODES),)
        )
        return dict(train(run, folder / name).metrics)

    dreamer = returns("dreamer", find("control.dreamer:point"), RATIO)
    drq = find("control.drq:point")
    drq = returns("drq", replace(drq, data=replace(drq.data, batch_size=32)), 1.0)
    found = {"dreamer": dreamer[f"return/n{EPISODES}"], "drq": drq[f"return/n{EPISODES}"]}
    found |= {"expert": dreamer["expert_return"], "random": dreamer["random_return"]}
    return found | {"share": 100 * found["dreamer"] / found["expert"]}
