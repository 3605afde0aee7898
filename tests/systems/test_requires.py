"""Every preset reads a kind of sample whose batches hold what its objective requires."""

from drawn import objective_of

from filmstrip import systems


def test_every_preset_reads_what_its_objective_requires(name):
    for preset in systems.presets(name):
        objective, run = objective_of(f"{name}:{preset}")
        assert set(objective.requires) <= run.data.reads.specification.keys.keys(), f"{name}:{preset}"
