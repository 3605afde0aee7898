"""Annotated procedures: the public sets as published, the windows cut from them, where features come from."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from filmstrip.data.annotations.coin import read_coin
from filmstrip.data.annotations.crosstask import read_crosstask
from filmstrip.data.annotations.ego4d import read_ego4d
from filmstrip.data.annotations.niv import read_niv
from filmstrip.data.annotations.own import read_own, write_own
from filmstrip.data.annotations.steps_manifest import write_manifest
from filmstrip.data.config import Data
from filmstrip.data.features import FeatureWriter
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.procedures.clips import open_clips, read_embeddings
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.procedures.windows import Part, window_size, windows
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "planning"
public = pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared/data/planning: annotations of public sets")
STEPS, TASKS = ("melt", "stir", "pour", "wait", "serve"), ("fudge", "tea")


def procedure(name, steps, *, split="train", task=0, seconds=2.0):
    """Steps one after the other, each of so many seconds."""
    return Procedure(
        video=name,
        split=split,
        task=task,
        steps=tuple(Step(step, i * seconds, (i + 1) * seconds) for i, step in enumerate(steps)),
    )


PROCEDURES = (
    procedure("a", (0, 1, 2, 3, 4)),
    procedure("b.x.mp4", (1, 2, 1), task=1),
    procedure("deep/c.mp4", (4, 3, 2, 1), split="test"),
)


@pytest.fixture
def annotations(tmp_path):
    write_own(
        Annotations(root=tmp_path, steps=STEPS, tasks=TASKS, procedures=PROCEDURES), tmp_path / "procedures.json"
    )
    return tmp_path / "procedures.json"


def cut(config, source=PROCEDURES[0]):
    """Each window of a procedure as rows of (step, whether it is seen, whether it is a target)."""
    return [
        [(p.step, p.given is not None, p.target) for p in w.places] for w in windows(source, Procedures(**config))
    ]


SEEN, ASKED, PADDING = (True, False), (False, True), (-1, False, False)


def test_forecasting_windows_end_with_the_next_steps():
    found = cut({"observed": 2, "horizon": 2})
    assert found == [
        [PADDING, (0, *SEEN), (1, *ASKED), (2, *ASKED)],
        [(0, *SEEN), (1, *SEEN), (2, *ASKED), (3, *ASKED)],
        [(1, *SEEN), (2, *SEEN), (3, *ASKED), (4, *ASKED)],
    ]
    assert cut({"observed": 2, "horizon": 2, "task": "anticipation"}) == found[1:]


def test_plans_ask_for_all_steps_between_two_states():
    found = list(windows(PROCEDURES[0], Procedures(task="planning", horizon=3, state_seconds=1.5)))
    assert len(found) == 3
    start, *steps, goal = found[1].places
    assert (start.given, goal.given) == (Part(2.0, 3.5, 1, 2, 2.0), Part(6.5, 8.0, 3, 7, 2.0))
    assert [(place.step, place.given, place.target) for place in steps] == [(s, None, True) for s in (1, 2, 3)]
    assert start.step == goal.step == -1 and not start.target and found[1].span == (2.0, 8.0)
    assert not list(windows(PROCEDURES[1], Procedures(task="planning", horizon=4)))


def test_tasks_are_asked_for_at_a_last_place():
    seen = (-1, *SEEN)
    assert cut({"task": "task_classification", "observed": 2}) == [[seen, seen, (0, *ASKED)]]
    assert cut({"task": "task_classification", "observed": 4}, PROCEDURES[1]) == [
        [PADDING, seen, seen, seen, (1, *ASKED)]
    ]
    whole = next(windows(PROCEDURES[0], Procedures(task="task_classification", observed=2)))
    assert [place.given.step for place in whole.places[:2]] == [1, 3]


def test_the_step_of_a_clip_is_asked_for_where_it_is_seen():
    assert cut({"task": "step_classification"}, PROCEDURES[1]) == [[(s, True, True)] for s in (1, 2, 1)]


@pytest.mark.parametrize(
    "task", ["forecast", "planning", "task_classification", "step_classification", "anticipation"]
)
def test_all_windows_of_a_task_stack(task):
    config = Procedures(task=task, observed=2, horizon=2)
    found = [window for source in PROCEDURES for window in windows(source, config)]
    assert {len(window.places) for window in found} == {window_size(config)}
    assert len({tuple(place.target for place in window.places) for window in found}) == 1
    for window in found:
        both = [place.target and place.given is not None for place in window.places]
        assert all(both) if task == "step_classification" else not any(both)


def data_of(annotations, path=None, **changes):
    config = {"annotations": annotations, "observed": 2} | changes
    return Data(path=path, reads=Procedures(**config), batch_size=4, num_workers=0)


def take(data, count, start=0, **changes):
    data = replace(data, **changes)
    loader = TrainLoader(open_source(data), data, seed=3)
    batches = list(itertools.islice(loader.stream(start), count))
    loader.close()
    return batches


def test_batches_are_what_the_protocols_promise(annotations):
    data = data_of(annotations, tokens=3, width=8)
    source = open_source(data)
    info = source.info("train")
    assert (info.steps, info.tasks, info.window) == (STEPS, TASKS, 3)
    assert (info.grid, info.width, info.num_train) == ((3, 1, 1), 8, 6)
    batch = take(data, 1)[0]
    assert batch.keys() == source.gives and list(source.kind.specification.faults(batch)) == []
    assert batch["features"].shape == (4, 3, 3, 8) and batch["features"].dtype == torch.float32
    assert batch["step"].dtype == batch["task"].dtype == torch.int64
    assert batch["seen"].dtype == batch["target"].dtype == torch.bool
    assert not batch["features"][~batch["seen"]].any() and batch["features"][batch["seen"]].any(dim=-1).all()
    assert batch["name"][0].startswith(("a [", "b.x.mp4 ["))


def test_order_and_content_do_not_depend_on_workers_or_on_where_the_stream_began(annotations):
    data = data_of(annotations)
    whole = take(data, 4)
    for later in (take(data, 2, start=2), take(data, 2, start=2, num_workers=2)):
        for one, other in zip(whole[2:], later):
            assert one["name"] == other["name"] and torch.equal(one["seed"], other["seed"])
            assert torch.equal(one["features"], other["features"]) and torch.equal(one["step"], other["step"])


def test_a_clip_has_the_same_features_in_every_window(annotations):
    data = data_of(annotations)
    rows = [
        row for batch in EvalLoader(open_source(data), data, "train") for row in zip(batch["name"], batch["features"])
    ]
    by_name = dict(rows)
    # The last clip of one window is the last but one of the next.
    assert torch.equal(by_name["a [1]"][1], by_name["a [2]"][0])
    assert not torch.equal(by_name["a [1]"][0], by_name["a [1]"][1])


def test_noise_is_over_the_embeddings_own_size(tmp_path):
    np.save(tmp_path / "text.npy", 7 * np.random.default_rng(0).normal(size=(5, 2, 400)).astype(np.float16))
    clean = open_clips(tmp_path / "text.npy", Procedures(noise=0.0), 5)
    noisy = open_clips(tmp_path / "text.npy", Procedures(noise=0.5), 5)
    given = Part(0.0, 1.0, 3, 0)
    assert clean.read("a", given).square().mean() == pytest.approx(1, rel=1e-3)
    assert (noisy.read("a", given) - clean.read("a", given)).std() == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(noisy.read("a", given), noisy.read("b", given))
    with pytest.raises(UserError, match="6 steps need one of 6 x"):
        read_embeddings(tmp_path / "text.npy", 6)


def encoded(folder, rows, width=4):
    """A folder as ``filmstrip encode`` writes it; each clip's features are its place in ``rows``."""
    with FeatureWriter(folder, about={"weights": "abc", "encoder": "runs/e", "level": "clip"}) as writer:
        for i, (name, spans) in enumerate(rows):
            values = torch.stack([torch.full((1, width), 100.0 * i + k) for k in range(len(spans))])
            writer.add(name, values, spans=spans)
    return folder


def test_encoded_steps_are_found_by_name_and_time(tmp_path):
    steps = [(f"train/v.mp4 [{s:g}-{s + 2:g}]", [(s + 0.1, s + 1.9)]) for s in (0.0, 2.0, 4.0)]
    clips = open_clips(
        encoded(tmp_path / "f", [*steps, ("w.mp4", [(0.0, 1.0), (3.0, 5.0), (5.0, 9.0)])]), Procedures(), 5
    )
    assert clips.about["encoder"] == "runs/e" and clips.width == 4
    for video in ("v", "v.mp4", "train/v", "train/v.mp4"):
        assert video in clips and clips.read(video, Part(2.0, 4.0, 0, 0)).tolist() == [[100.0] * 4]
    assert clips.read("w", Part(4.0, 8.0, 0, 0))[0, 0] == 302
    assert "x" not in clips
    with pytest.raises(OSError, match=r"no clip of w from 1\.5 to 2\.5 s"):
        clips.read("w", Part(1.5, 2.5, 0, 0))


def test_frames_spread_over_a_whole_video_do_not_stand_for_its_steps(tmp_path):
    clips = open_clips(
        encoded(tmp_path / "f", [("v.mp4", [(0.1 * k, 30 + 0.1 * k) for k in range(3)])]), Procedures(), 5
    )
    assert clips.read("v", Part(2.0, 30.0, 0, 0, 28.0)).shape == (1, 4)
    with pytest.raises(OSError, match="spread over far more than the step from 2"):
        clips.read("v", Part(2.0, 12.0, 0, 0, 10.0))


def test_videos_of_one_name_are_told_apart_by_their_path(tmp_path):
    clips = open_clips(encoded(tmp_path / "f", [("one/v.mp4", [(0, 1)]), ("two/v.mp4", [(0, 1)])]), Procedures(), 5)
    assert clips.read("two/v", Part(0.0, 1.0, 0, 0))[0, 0] == 100
    with pytest.raises(UserError, match="several videos that could be v"):
        assert "v" in clips


def test_public_folders_of_arrays(annotations, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, rows in (("a", 10), ("23521_b.x", 6), ("c", 8)):
        values = np.arange(rows, dtype=np.float64)[:, None].repeat(3, axis=1)
        with open(folder / f"{name}.npy", "wb") as file:  # an archive by another name, as PDPP's are
            np.savez(file, frames_features=values, steps_ids=np.arange(3))
    data = data_of(annotations, folder)
    source = open_source(data)
    assert source.info("train").width == 3
    batch = next(iter(EvalLoader(source, data, "test")))
    assert batch["features"][1, :, 0, 0].tolist() == [0.5, 2.5, 0.0]
    assert {sample.window.procedure.video for sample in source.samples} == {"a", "b.x.mp4", "deep/c.mp4"}


def test_files_that_are_missing_short_or_of_another_width_lose_nothing(annotations, tmp_path, caplog):
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((7, 3), np.float32))  # its last step begins at 8 s
    np.save(folder / "c.npy", np.ones((9, 5), np.float32))
    data = replace(data_of(annotations, folder, task="step_classification"), max_unreadable=1.0)
    source = open_source(data)
    assert "1 of 3 annotated videos have no features" in caplog.text
    loader = EvalLoader(source, data, "train")
    assert len(next(iter(loader))["name"]) == 4
    assert [(e.name, e.used) for e in loader.unreadable] == [("a [4]", False)]
    assert "7 s of features, and a step begins at 8 s" in loader.unreadable[0].reason
    other = EvalLoader(source, data, "test")
    assert not list(other) and "width 5, and the others have 3" in other.unreadable[0].reason
    with pytest.raises(UserError, match="could not be read"):
        take(replace(data, train_split="test", max_unreadable=0.05), 1)


def test_videos_without_an_array_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((7, 3), np.float32))
    clips = open_clips(tmp_path, Procedures(), 5)
    assert "b" not in clips
    with pytest.raises(OSError, match="no array of b"):
        clips.read("b", Part(0.0, 1.0, 0, 0, 1.0))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"frames_features": np.ones((3, 2))}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds no features"):
        open_clips(tmp_path, Procedures(), 5)


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"horizon": 9}, None, r"longest video of 'train' has 5 steps, and forecast with horizon 9 needs 10"),
        ({"task": "planning", "horizon": 5}, None, r"longest video of 'test' has 4 steps"),
        ({"horizon": 0}, None, "one or more"),
        ({}, "nowhere", "does not exist"),
        ({}, "empty", "holds neither features"),
        ({"annotations": None}, None, "procedures need annotations"),
    ],
)
def test_what_cannot_be_is_refused(annotations, tmp_path, changes, path, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        open_source(data_of(changes.pop("annotations", annotations), path and tmp_path / path, **changes))


def test_features_of_other_videos_are_refused(annotations, tmp_path):
    with pytest.raises(UserError, match="none of the 3 annotated videos, such as a:"):
        open_source(data_of(annotations, encoded(tmp_path / "f", [("z.mp4", [(0, 1)])])))


def test_own_annotations_come_back_and_are_checked(annotations):
    found = read_own(annotations.parent)
    assert (found.steps, found.tasks, found.procedures) == (STEPS, TASKS, PROCEDURES)
    values = json.loads(annotations.read_text())

    def refused(change, message):
        wrong = json.loads(json.dumps(values))
        change(wrong["videos"][0])
        annotations.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=message):
            read_own(annotations)

    refused(
        lambda video: video["steps"][0].update(step="mellt"), "does not list the step 'mellt'; did you mean 'melt'"
    )
    refused(lambda video: video.update(task="wine"), "does not list the task 'wine'")
    refused(lambda video: video["steps"][0].update(end=0.0), "a has a step from 0 to 0 s")
    refused(lambda video: video.pop("steps"), "not of the form")


def test_ego4d_in_its_layout(tmp_path):
    actions = [
        {
            "clip_uid": "u",
            "action_idx": i,
            "action_clip_start_sec": 2.0 - i,
            "action_clip_end_sec": 8.0,
            "verb_label": i,
            "noun_label": 0,
        }
        for i in (1, 0)
    ]
    (tmp_path / "fho_lta_taxonomy.json").write_text(json.dumps({"verbs": ["cut", "mix"], "nouns": ["onion"]}))
    (tmp_path / "fho_lta_train.json").write_text(json.dumps({"version": "v2", "clips": actions}))
    (tmp_path / "fho_lta_val.json").write_text(json.dumps({"clips": []}))
    found = read_ego4d(tmp_path)
    assert found.steps == ("cut", "mix") and found.procedures[0].video == "u"
    # In the order of the benchmark, though the second action begins earlier.
    assert found.procedures[0].steps == (Step(0, 2.0, 8.0), Step(1, 1.0, 8.0))
    assert [step.step for step in read_ego4d(tmp_path, "noun").procedures[0].steps] == [0, 0]
    actions[0]["verb_label"] = 2
    (tmp_path / "fho_lta_train.json").write_text(json.dumps({"clips": actions}))
    with pytest.raises(UserError, match="has the verb 2, and the taxonomy names 2"):
        read_ego4d(tmp_path)


def test_a_manifest_of_steps(annotations, tmp_path):
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    for name in ("b.x.mp4", "deep/C.mp4"):
        (videos / name).touch()
    assert write_manifest(read_own(annotations), videos, tmp_path / "steps.csv") == 7
    header, first, *_ = (tmp_path / "steps.csv").read_text().splitlines()
    assert header == "path,label,split,start,end" and first == f"{videos / 'b.x.mp4'},stir,train,0.0,2.0"
    with pytest.raises(UserError, match="holds none of the 3 annotated videos"):
        write_manifest(read_own(annotations), tmp_path / "arrays", tmp_path / "none.csv")


def splits(found):
    return {split: len(found.split(split)) for split in ("train", "test")}


@public
def test_coin_as_published():
    found = read_coin(PUBLIC / "coin")
    assert (len(found.steps), len(found.tasks)) == (778, 180) and splits(found) == {"train": 7064, "test": 3006}
    entries = json.loads((PUBLIC / "coin" / "pdpp_coin_test_30.json").read_text())
    for procedure, entry in list(zip(found.split("test"), entries))[::100]:
        ((video, annotated),) = entry.items()
        assert procedure.video == video and found.tasks[procedure.task].replace(" ", "") == annotated["class"]
        labels = {annotation["label"].strip() for annotation in annotated["annotation"]}
        assert {re.sub(r" \(\d+\)$", "", found.steps[step.step]) for step in procedure.steps} == labels
        assert [step.start for step in procedure.steps] == sorted(step.start for step in procedure.steps)


@public
def test_crosstask_as_published():
    found = read_crosstask(PUBLIC / "crosstask")
    assert (len(found.steps), len(found.tasks)) == (133, 18) and splits(found) == {"train": 1943, "test": 805}
    assert splits(read_crosstask(PUBLIC / "crosstask", "release")) == {"train": 2390, "test": 360}
    assert splits(read_crosstask(PUBLIC / "crosstask", "schema")) == {"train": 2200, "test": 340}
    one = next(p for p in found.procedures if p.video == "-YtYoSwdUf8")
    assert found.tasks[one.task] == "Make Kimchi Fried Rice" and (one.steps[0].start, one.steps[0].end) == (2.1, 5.7)
    assert found.steps[one.steps[0].step].startswith("Make Kimchi Fried Rice: ")
    shared = read_crosstask(PUBLIC / "crosstask", shared_steps=True)
    assert len(shared.steps) == 105
    assert found.steps[one.steps[0].step].endswith(
        ": " + shared.steps[next(p for p in shared.procedures if p.video == one.video).steps[0].step]
    )


@public
def test_niv_as_published():
    found = read_niv(PUBLIC / "niv", "schema")
    assert (len(found.steps), len(found.tasks)) == (48, 5) and splits(found) == {"train": 103, "test": 45}
    assert splits(read_niv(PUBLIC / "niv")) == {"train": 100, "test": 42}
    entries = json.loads((PUBLIC / "niv" / "schema_niv_valid.json").read_text())
    for procedure in found.split("test"):
        entry = entries[procedure.video]
        assert procedure.task == entry["task_id"]
        assert [step.step for step in procedure.steps] == [
            step["action_id"] for step in sorted(entry["steps"], key=lambda step: step["start"])
        ]
    with pytest.raises(UserError, match="no split"):
        read_niv(PUBLIC / "niv", "release")


@public
@pytest.mark.parametrize("dataset", ["niv", "crosstask"])
def test_text_features_stand_for_clips(dataset):
    path = PUBLIC / "text_features" / f"{dataset}_action_prompt_features.npy"
    config = Procedures(dataset=dataset, annotations=PUBLIC / dataset, task="planning", horizon=3)
    data = Data(path=path, reads=config, batch_size=4, num_workers=0)
    batch = take(data, 1)[0]
    assert batch["features"].shape == (4, 5, 1, 768)
    assert batch["seen"].tolist() == [[True, False, False, False, True]] * 4
