"""An agent that never sees a reward of its task comes near one that does, by the likelihood of experts' videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above
from filmstrip.evals.returns import Returns
from filmstrip.rl.films import ExpertFilms
from filmstrip.runs.config import Run
from filmstrip.runs.experiment import train
from filmstrip.systems import find
from filmstrip.train.lengths import Steps

FILMS, CODE_STEPS, PRIOR_STEPS = 50, 300, 500
STEPS, PREFILL, BATCH, EPISODES = 4000, 500, 32, 10
"""Steps of the agent in its environment and, before them, at random; size of batches; episodes that measure it."""
MODEL = {"width": 64, "depth": 3}

CLAIM = Claim(
    systems=("rewards.viper", "control.drq"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: over 15 tasks of the DeepMind Control Suite, agents by VIPER come near the task's "
    "own reward, slightly below (plots of three seeds); DrQ is the agent of an ablation.",
    here=f"`orbit` at 32 x 32 pixels. VideoGPT of 8 frames, above a tokenizer, learns {FILMS} episodes of an expert "
    f"of quality 0.9. DrQ learns for {STEPS} steps, after {PREFILL} random ones, by its likelihood and a bonus for "
    "new frames (weight 1), or by the true reward. True returns are those of "
    f"{EPISODES} other episodes, of 50 steps that earn 1 at most each.",
    baseline="The true reward (oracle), and actions at random.",
    figures={
        "viper": Figure(says="true return by the likelihood of experts' films"),
        "oracle": Figure(says="by the true reward"),
        "expert": Figure(says="of the scripted expert"),
        "random": Figure(says="of random actions"),
        "share": Figure(says="return by likelihood, % of the oracle's", digits=0),
    },
    expected=(
        above("viper", "random", "films alone teach the agent", by=5.0),
        above("share", 80.0, "it reaches four fifths of what the true reward teaches"),
        above("oracle", "random", "the true reward teaches it, too", by=5.0),
    ),
    minutes=12,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = ExpertFilms(environments=("orbit",), num_train=FILMS, num_test=1, seed=1000 * seed)

    def shortened(run: Run, steps: int) -> Run:
        loop = replace(run.train, length=Steps(steps), log_every=100, save_every=steps, eval_every=None)
        return replace(run, train=loop, seed=seed, evals=())

    codes, prior = (find(f"rewards.viper:{name}") for name in ("point_codes", "point"))
    codes = replace(codes, data=replace(codes.data, synthetic=films, num_workers=0))
    train(shortened(codes, CODE_STEPS), folder / "codes")
    prior = replace(
        prior,
        data=replace(prior.data, synthetic=films, num_workers=0),
        objective=replace(prior.objective, tokenizer_run=str(folder / "codes"), **MODEL),
    )
    train(shortened(prior, PRIOR_STEPS), folder / "prior")
    found: dict[str, float] = {}
    for name, preset, reward in (("oracle", "point", None), ("viper", "viper_point", str(folder / "prior"))):
        agent = find(f"control.drq:{preset}")
        reads = agent.data.reads
        reads = replace(reads, env=replace(reads.env, name="orbit"), prefill=PREFILL, reward_run=reward)
        agent = replace(agent, data=replace(agent.data, reads=reads, batch_size=BATCH))
        agent = replace(shortened(agent, STEPS), evals=(Returns(episodes=EPISODES),))
        values = train(agent, folder / name).metrics
        found[name] = values[f"return/n{EPISODES}"]
        found |= {"expert": values["expert_return"], "random": values["random_return"]}
    return found | {"share": 100 * found["viper"] / max(found["oracle"], 1e-9)}
