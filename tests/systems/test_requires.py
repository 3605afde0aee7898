"""Every preset reads a kind of sample whose batches hold what its objective requires."""

from dataclasses import replace

import torch
from drawn import info_for

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo


def test_every_preset_reads_what_its_objective_requires(name):
    for preset in systems.presets(name):
        run = systems.find(f"{name}:{preset}")
        kind = run.data.reads
        info = info_for(kind)
        if isinstance(info, ClipInfo):
            info = replace(info, num_actions=4)  # some presets refuse data without
        with torch.device("meta"):
            objective = run.bound(info).objective.build()
        assert set(objective.requires) <= kind.specification.keys.keys(), f"{name}:{preset}"
