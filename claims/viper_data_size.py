"""A single film of an expert makes a useful reward already, and more films make it better by less and less."""

from __future__ import annotations

from pathlib import Path

from claims.expert_films import model_of, played
from claims.ledger import Claim, Figure, above, below
from filmstrip.evals.reward_alignment import alignment

FILMS, TESTS, QUALITIES, WINDOW = (1, 5, 20, 50, 100), 40, (0.0, 0.25, 0.5, 0.75, 1.0), 4

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: agents learn from the reward of a single trajectory already, and gain little by "
    "more than 50 (plots without numbers).",
    here=f"`orbit` (a point that circles, 32 x 32 pixels): tokenizer and VideoGPT of {WINDOW} frames learn "
    f"{', '.join(map(str, FILMS))} episodes of an expert of quality 0.9, all in as many steps. {TESTS} others, of "
    f"qualities {', '.join(map(str, QUALITIES))}, are rewarded; areas under the curve are of single steps of the "
    "best and of random ones.",
    baseline="A single film.",
    figures={
        **{f"random {n}": Figure(says=f"expert against random, films: {n}", digits=3) for n in FILMS},
        **{f"spearman {n}": Figure(says=f"rank correlation with returns, films: {n}", digits=3) for n in FILMS},
        "early gain": Figure(says="area gained from 1 film to 20", digits=3),
        "late gain": Figure(says="area gained from 20 films to 100", digits=3),
    },
    expected=(
        above("random 1", 0.6, "one film tells an expert from random actions"),
        above("random 100", "random 1", "more films tell it better"),
        below("late gain", "early gain", "gains shrink"),
        above("spearman 100", 0.8, "rewards rank episodes as their returns do"),
    ),
    minutes=17,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("orbit", range(1000 * seed, 1000 * seed + max(FILMS)), (0.9,))]
    seen = played("orbit", range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS), QUALITIES)
    found = {}
    for count in FILMS:
        values = dict(alignment(model_of(films[:count], seed, window=WINDOW), seen, seed))
        found[f"random {count}"] = values["auc_random"]
        found[f"spearman {count}"] = values[f"spearman/n{TESTS}"]
    found["early gain"] = found["random 20"] - found["random 1"]
    found["late gain"] = found["random 100"] - found["random 20"]
    return found
