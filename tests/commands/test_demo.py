from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from filmstrip.commands.work import demo, demo_generation
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.report import Report
from filmstrip.train.lengths import Steps


@pytest.mark.parametrize("data", [None, Path("videos")])
def test_fine_tuning_and_training_from_scratch_differ_only_in_their_start(data):
    runs = demo.plan_runs(Path("out"), data)
    fine_tuned, scratch = runs[demo.FINE_TUNED], runs[demo.SCRATCH]
    assert fine_tuned.init == str(Path("out") / "videomae") and scratch.init is None
    assert (fine_tuned.objective, fine_tuned.data, fine_tuned.optim, fine_tuned.train, fine_tuned.evals) == (
        scratch.objective,
        scratch.data,
        scratch.optim,
        scratch.train,
        scratch.evals,
    )


@pytest.mark.parametrize("data", [None, Path("videos")])
def test_what_was_pretrained_fits_what_is_fine_tuned(data):
    runs = demo.plan_runs(Path("out"), data)
    pretrained, fine_tuned = runs[demo.PRETRAINED].objective.build(), runs[demo.FINE_TUNED].objective.build()
    given = {name: value.shape for name, value in pretrained.encoder.state_dict().items()}
    wanted = {name: value.shape for name, value in fine_tuned.encoder.state_dict().items()}
    assert wanted and wanted.items() <= given.items()


def test_every_run_reads_the_same_videos():
    own = demo.plan_runs(Path("out"), Path("videos")).values()
    assert all(run.data.path == Path("videos") and run.data.synthetic is None for run in own)
    made = demo.plan_runs(Path("out"), None).values()
    assert all(run.data.path is None and run.data.synthetic == demo.MOTIONS for run in made)


def test_generation_goes_from_videos_to_tokens_to_samples(tmp_path, monkeypatch):
    planned = demo_generation.plan_runs
    short = {"train": replace(planned(tmp_path, demo.MOTIONS)[demo_generation.PRIOR].train, length=Steps(2))}

    def plan(out, data):
        return {name: replace(run, **short) for name, run in planned(out, data).items()}

    monkeypatch.setattr(demo_generation, "plan_runs", plan)
    motions = Motions(train_per_class=2, test_per_class=1, size=32)
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    made = demo_generation.train_and_sample(tmp_path, motions, Console(quiet=True), first=1, last=2)
    source = made.prior.source
    assert "tokens" in source.gives and "video" not in source.gives and source.classes == tuple(MOTIONS)
    assert made.samples.shape == (len(MOTIONS) * demo_generation.SAMPLES, 8, 3, 32, 32)
    page = Report("Generation", "", demo_generation.sections(made)).html()
    assert page.count("<img") == 2 * len(MOTIONS) and all(f">{name}<" in page for name in MOTIONS)
