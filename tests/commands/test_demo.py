from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from filmstrip.commands.work import demo, demo_generation, demo_labels
from filmstrip.commands.work.demo_labels import Arm
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.errors import UserError
from filmstrip.report import Report
from filmstrip.train.lengths import Steps


def every_run(data):
    """All recognisers' runs, by their folders."""
    plan = demo.plan_runs(data)
    arms = {
        arm.folder: demo_labels.planned(plan.classifier, arm, Path("out/future-frames"), plan.steps_on_all)
        for arm in demo_labels.arms(100, plan.seeds)
    }
    return {"future-frames": plan.pretrain, **arms, **plan.others}


@pytest.mark.parametrize("data", [None, Path("videos")])
def test_pretrained_and_from_scratch_differ_only_in_their_start(data):
    runs = every_run(data)
    pretrained = [name for name in runs if name.startswith("pretrained")]
    assert len(pretrained) == len(demo_labels.FEW) * demo.plan_runs(data).seeds + 1
    for name in pretrained:
        begun, scratch = runs[name], runs[name.replace("pretrained", "scratch")]
        assert begun.init == "out/future-frames" and scratch.init is None
        assert replace(begun, init=None) == scratch


def test_seeds_choose_other_videos_and_other_weights():
    runs = every_run(None)
    chosen = {(run.data.videos_per_class, run.data.subset_seed, run.seed) for run in runs.values()}
    assert {(5, 0, 0), (5, 1, 1), (5, 2, 2), (None, 0, 0)} <= chosen


def test_few_labels_are_fewer_than_there_are():
    counts = {most: {arm.labels for arm in demo_labels.arms(most, 1)} for most in (4, 5, 6, 20)}
    assert counts == {4: {None}, 5: {None}, 6: {5, None}, 20: {5, None}}


@pytest.mark.parametrize("data", [None, Path("videos")])
def test_what_was_pretrained_fits_what_is_fine_tuned(data):
    plan = demo.plan_runs(data)
    pretrained, classifier = plan.pretrain.objective.build(), plan.classifier.objective.build()
    given = {name: value.shape for name, value in pretrained.encoder.state_dict().items()}
    assert given == {name: value.shape for name, value in classifier.encoder.state_dict().items()}


def test_every_run_reads_the_same_videos():
    own = every_run(Path("videos")).values()
    assert all(run.data.path == Path("videos") and run.data.synthetic is None for run in own)
    made = every_run(None).values()
    assert all(run.data.path is None and run.data.synthetic == demo.MOTIONS for run in made)


def test_gains_are_means_of_pairs_with_their_interval():
    accuracy = dict.fromkeys(demo_labels.arms(10, 3), 0.5)
    assert {arm.labels for arm in accuracy} == {5, None}
    for seed, gained in enumerate((0.2, 0.3, 0.4)):
        accuracy[Arm(5, seed, True)] += gained
    steps = {arm: 7 if arm.labels else 9 for arm in accuracy}
    few, full = demo_labels.gains(accuracy, steps, {0: 10, 1: 4})
    assert (few.steps, full.steps) == (7, 9)
    assert (few.labels, few.videos, full.labels, full.videos) == (5, 9, 10, 14)
    value, reach = few.difference
    assert value == pytest.approx(0.3) and reach == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert (
        demo_labels.said(few).replace("\N{NO-BREAK SPACE}", " ") == "+30.0 ± 24.8"
        and demo_labels.said(full) == "+0.0"
    )


def test_the_demo_runs_whole_and_resumes(tmp_path, monkeypatch):
    """On a few videos and for two steps a run; the page has its parts, and a second call trains nothing."""
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    videos = Motions(train_per_class=6, test_per_class=1, size=32).generate(tmp_path / "videos")
    planned = demo.plan_runs

    def short(run):
        train = replace(run.train, length=Steps(2))
        return replace(run, data=replace(run.data, num_workers=0, batch_size=4), train=train)

    def plan(data):
        made = replace(planned(None), seeds=2, steps_on_all=2)
        runs = {"pretrain": made.pretrain, "classifier": made.classifier}
        runs = {name: short(replace(run, data=replace(run.data, path=data))) for name, run in runs.items()}
        return replace(made, **runs, others={})

    monkeypatch.setattr(demo, "plan_runs", plan)
    page = demo.run_demo(tmp_path / "out", videos).read_text()
    for title in ("What pretraining without labels is worth", "What comes next", "Comparison", "Confusion matrix"):
        assert title in page
    assert "Fine-tuned on 5 labelled videos a class" in page and "(with 6, " in page
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("weights.safetensors")}
    assert len(before) == 1 + 2 * 2 + 2
    demo.run_demo(tmp_path / "out", videos)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("weights.safetensors")} == before


def test_the_demo_needs_labels(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="at least two classes"):
        demo.run_demo(tmp_path / "out", tmp_path)


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
