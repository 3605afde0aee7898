"""Every preset reads a kind of sample whose batches hold what its objective requires."""

import torch
from drawn import info_for

from filmstrip import systems


def test_every_preset_reads_what_its_objective_requires(name):
    for preset in systems.presets(name):
        run = systems.find(f"{name}:{preset}")
        kind = run.data.reads
        with torch.device("meta"):
            objective = run.bound(info_for(kind)).objective.build()
        assert set(objective.requires) <= kind.specification.keys.keys(), f"{name}:{preset}"
