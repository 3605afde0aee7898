"""Folders and manifests open as what the person meant, or say what is wrong with them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filmstrip.data.config import Data, Synthetic
from filmstrip.data.sources import open_path, open_source
from filmstrip.errors import UserError

REAL = Path(__file__).parents[2] / "../shared/data/actions"


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(root: Path, text: str, name: str = "videos.csv") -> Path:
    path = root / name
    path.write_text(text)
    return path


def rows(source) -> list[tuple]:
    return [(s.name, s.split, None if s.label is None else source.classes[s.label]) for s in source.samples]


def test_class_folders_nested_and_mixed_case_extensions(tmp_path):
    make(tmp_path, "run/a.mp4", "run/deep/er/b.MKV", "jump/c.AvI", "jump/d.webm")
    make(tmp_path, "run/.hidden.mp4", "run/notes.txt", ".git/x.mp4", "jump/__thumb.jpg", "empty/readme.md")
    source = open_path(tmp_path)
    assert source.classes == ("jump", "run")
    assert [s.name for s in source.samples] == ["jump/c.AvI", "jump/d.webm", "run/a.mp4", "run/deep/er/b.MKV"]
    assert [s.label for s in source.samples] == [0, 0, 1, 1]
    assert not source.directional
    assert all(Path(s.path).is_file() and s.file() == s.path for s in source.samples)


def test_split_folders(tmp_path):
    make(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "val/run/c.mp4", "test/jump/d.mp4")
    source = open_path(tmp_path)
    assert rows(source) == [
        ("test/jump/d.mp4", "test", "jump"),
        ("train/jump/b.mp4", "train", "jump"),
        ("train/run/a.mp4", "train", "run"),
        ("val/run/c.mp4", "val", "run"),
    ]
    with pytest.raises(UserError, match=r"no split 'dev'; it has 'test', 'train', 'val'"):
        source.split("dev")
    info = source.info("train")
    assert (info.classes, info.num_train, info.directional) == (("jump", "run"), 2, False)


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path, "train/a.mp4", "train/b.mp4", "plane/c.mp4", "plane/d.mp4")
    source = open_path(tmp_path)
    assert source.classes == ("plane", "train")
    assert source.splits == ("test", "train")


def test_videos_without_folders_are_unlabelled(tmp_path):
    make(tmp_path, *(f"{i}.mp4" for i in range(10)))
    source = open_path(tmp_path)
    assert source.classes == ()
    assert {s.label for s in source.samples} == {None}
    assert len(source.split("test")) == 2
    make(tmp_path, "run/a.mp4")
    with pytest.raises(UserError, match=r"0\.mp4 lies beside class folders"):
        open_path(tmp_path)


def test_splits_are_made_within_each_class_by_name(tmp_path):
    make(tmp_path / "one", *(f"run/{i}.mp4" for i in range(20)), "jump/a.mp4", "jump/b.mp4", "sit/a.mp4")
    make(tmp_path / "two", *(f"run/{i}.mp4" for i in range(20)), "jump/a.mp4", "jump/b.mp4", "sit/a.mp4")
    first, second = open_path(tmp_path / "one"), open_path(tmp_path / "two")
    assert rows(first) == rows(second)
    held = [first.classes[s.label] for s in first.split("test")]
    assert sorted(held) == ["jump", "run", "run", "run", "run"]
    assert "sit" in {first.classes[s.label] for s in first.split("train")}


def test_groups_are_not_torn_apart(tmp_path):
    names = [f"{label}/{person}.mp4" for label in ("jump", "run") for person in range(10)]
    make(tmp_path, *names)
    lines = "\n".join(f"{name},{name.split('/')[0]},p{Path(name).stem}" for name in names)
    source = open_path(table(tmp_path, f"path,label,actor\n{lines}\n"))
    train, test = ({s.group for s in source.split(name)} for name in ("train", "test"))
    assert (len(train), len(test)) == (8, 2) and not train & test


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path / "store", "a.mp4")
    make(tmp_path / "set", "jump/b.mp4")
    (tmp_path / "set" / "run").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "jump" / "again").symlink_to(tmp_path / "set")
    assert open_path(tmp_path / "set").classes == ("jump", "run")


def test_notes_beside_a_folder(tmp_path):
    make(tmp_path, "left/a.mp4", "right/b.mp4")
    notes = tmp_path / "dataset.json"
    notes.write_text(json.dumps({"directional": True, "classes": ["right", "left"], "made_by": "hand"}))
    source = open_path(tmp_path)
    assert source.directional and source.info("train").directional
    assert source.classes == ("right", "left")
    assert [s.label for s in source.samples] == [1, 0]
    notes.write_text(json.dumps({"classes": ["left"]}))
    with pytest.raises(UserError, match=r"does not list the class 'right'"):
        open_path(tmp_path)
    notes.write_text(json.dumps({"directional": "yes"}))
    with pytest.raises(UserError, match=r"true or false, not 'yes'"):
        open_path(tmp_path)
    notes.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        open_path(tmp_path)


@pytest.mark.parametrize("header", ["path,label,split", "Filename,Class,subset", " video , ACTION ,Split"])
def test_manifest_columns_are_forgiving(tmp_path, header):
    make(tmp_path, "clips/a.mp4", "clips/b.mp4")
    source = open_path(table(tmp_path, f"{header}\nclips/a.mp4,run,train\nclips/b.mp4,jump,test\n"))
    assert rows(source) == [("clips/a.mp4", "train", "run"), ("clips/b.mp4", "test", "jump")]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_manifest_other_delimiters_and_a_byte_order_mark(tmp_path, delimiter):
    make(tmp_path, "a, b.mp4")
    path = tmp_path / "videos.csv"
    path.write_text(delimiter.join(["path", "label"]) + "\n" + delimiter.join(["a, b.mp4", "run"]), "utf-8-sig")
    assert open_path(path).samples[0].name == "a, b.mp4"


def test_manifest_parts_texts_and_groups(tmp_path):
    make(tmp_path, "a.mp4")
    path = table(tmp_path, "path,start,end,text,group\na.mp4,0,2.5,he runs,ann\na.mp4,2.5,,,bob\na.mp4,,,,\n")
    whole, rest, part = sorted(open_path(path).samples, key=lambda s: s.name)
    assert (part.start, part.end, part.text, part.group) == (2.5, None, (), "bob")
    assert (rest.start, rest.end, rest.text, rest.group) == (0.0, 2.5, ("he runs",), "ann")
    assert (whole.start, whole.end, whole.name) == (None, None, "a.mp4")
    assert len({whole.name, part.name, rest.name}) == 3


def test_times_may_have_hours_and_minutes(tmp_path):
    make(tmp_path, "a.mp4")
    path = table(tmp_path, "path,start,end\na.mp4,0:01.5,1:02:03.25\na.mp4,70,2:05\n")
    assert [(sample.start, sample.end) for sample in open_path(path).samples] == [(1.5, 3723.25), (70, 125)]


def test_manifest_integer_labels_are_positions(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4")
    path = table(tmp_path, "path,label,split\na.mp4,10,train\nb.mp4,2,test\n")
    source = open_path(path)
    assert len(source.classes) == 11
    assert [s.label for s in source.samples] == [10, 2]
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": [f"class {i}" for i in range(11)]}))
    assert open_path(path).classes[10] == "class 10"
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["one", "two"]}))
    with pytest.raises(UserError, match=r"a label 10, but dataset\.json lists 2 classes"):
        open_path(path)


def test_manifest_paths_start_at_a_parent_folder(tmp_path):
    make(tmp_path, "set/videos/a.mp4", "set/lists/none")
    source = open_path(table(tmp_path / "set" / "lists", "path,label\nset/videos/a.mp4,run\n"))
    assert Path(source.samples[0].path) == tmp_path / "set/videos/a.mp4"
    absolute = tmp_path / "set/videos/a.mp4"
    source = open_path(table(tmp_path / "set" / "lists", f"path,label\n{absolute},run\n"))
    assert (source.samples[0].path, source.samples[0].name) == (str(absolute), "videos/a.mp4")


def test_manifest_that_leads_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"row 2: gone/a\.mp4 is not below"):
        open_path(table(tmp_path, "path,label\ngone/a.mp4,run\n"))


def test_manifest_rows_without_a_split_are_left_out_with_a_message(tmp_path, caplog):
    make(tmp_path, "a.mp4", "b.mp4")
    source = open_path(table(tmp_path, "path,label,split\na.mp4,run,train\nb.mp4,jump,\n"))
    assert rows(source) == [("a.mp4", "train", "run")]
    assert "1 of 2 rows have no split" in caplog.text


def test_manifest_parquet(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4")
    path = tmp_path / "videos.parquet"
    columns = {"path": ["a.mp4", "b.mp4"], "label": [1.0, None], "start": [None, 0.5], "split": ["train", "test"]}
    pq.write_table(pa.table(columns), path)
    source = open_path(path)
    assert [s.label for s in source.samples] == [1, None]
    assert [s.start for s in source.samples] == [None, 0.5]
    assert open_path(tmp_path / "videos.parquet").splits == ("test", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.mp4,run\n", "no column of paths: .* it has name, label"),
        ("", "no column of paths: .* it has nothing"),
        ("path,label\n", "lists no videos"),
        ("path,label\na.mp4,run\n,run\n", "row 3: no path"),
        ("path,end\na.mp4,1:02:75\n", "row 2: start None and end '1:02:75' should be seconds, or h:mm:ss"),
        ("path,end\na.mp4,1:2:3:4\n", "row 2: start None and end '1:2:3:4' should be seconds"),
        ("path,start\na.mp4,soon\n", "row 2: start 'soon' and end None should be seconds"),
        ("path,start,end\na.mp4,1,2\n\na.mp4,3,2\n", r"row 4: start 3\.0 and end 2\.0 should satisfy"),
        ("path,start\na.mp4,nan\n", "row 2: .* should satisfy"),
        ("path,start\na.mp4,-1\n", "row 2: .* should satisfy"),
    ],
)
def test_manifest_errors_name_the_row(tmp_path, text, message):
    make(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=message):
        open_path(table(tmp_path, text))


def test_manifest_errors_are_not_a_flood(tmp_path):
    make(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"row 6.*\nand 95 more rows$") as caught:
        open_path(table(tmp_path, "path,start\n" + "a.mp4,soon\n" * 100))
    assert "row 7" not in str(caught.value)


@pytest.mark.parametrize("name", ["binary.csv", "broken.parquet"])
def test_manifest_of_another_kind(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\x00\x93" * 10)
    with pytest.raises(UserError, match=r"is not a (CSV|Parquet) file"):
        open_path(path)


def test_a_folder_with_a_manifest_is_opened_by_it(tmp_path):
    make(tmp_path, "x/a.mp4", "y/b.mp4")
    table(tmp_path, "path,label\nx/a.mp4,run\n", "manifest.csv")
    assert [s.name for s in open_path(tmp_path).samples] == ["x/a.mp4"]


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_path(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no videos"):
        open_path(tmp_path)
    with pytest.raises(UserError, match="a file of no known layout"):
        open_path(make(tmp_path, "a.mp4") / "a.mp4")
    with pytest.raises(UserError, match="no data was provided"):
        open_source(Data())


def test_synthetic_sets_are_generated_where_no_path_is_given(tmp_path):
    class Two(Synthetic):
        def generate(self) -> Path:
            return make(tmp_path, "train/run/a.mp4", "test/run/b.mp4")

    assert open_source(Data(synthetic=Two())).splits == ("test", "train")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real videos are not at ../shared/data/actions")
def test_the_real_action_videos_open_as_they_are():
    source = open_path(REAL)
    assert source.classes == ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
    assert (len(source.split("train")), len(source.split("test"))) == (60, 30)
    assert not {s.group for s in source.split("train")} & {s.group for s in source.split("test")}
    assert all(Path(s.path).is_file() for s in source.samples)


def labelled(root: Path, **per_class: int) -> Path:
    names = [
        f"{split}/{name}/{i}.mp4" for name, n in per_class.items() for split in ("train", "test") for i in range(n)
    ]
    return make(root, *names)


def training_names(source) -> set[str]:
    return {sample.name for sample in source.split("train")}


def test_few_training_videos_of_each_class_are_read(tmp_path):
    path = labelled(tmp_path, run=9, jump=9, rare=2)
    whole, few = open_source(Data(path=path)), open_source(Data(path=path, videos_per_class=4))
    assert [sample.label for sample in few.split("train")] == [0] * 4 + [1] * 2 + [2] * 4  # jump, rare, run
    assert few.split("test") == whole.split("test") and few.classes == whole.classes
    assert few.info("train").num_train == 10


def test_the_seed_chooses_them_and_fewer_are_some_of_more(tmp_path):
    path = labelled(tmp_path, run=30, jump=30)
    chosen = {
        (count, seed): training_names(open_source(Data(path=path, videos_per_class=count, subset_seed=seed)))
        for count in (5, 20)
        for seed in (0, 1)
    }
    assert chosen[5, 0] < chosen[20, 0] and chosen[5, 1] < chosen[20, 1]
    assert chosen[5, 0] != chosen[5, 1]
    assert training_names(open_source(Data(path=path, videos_per_class=5))) == chosen[5, 0]


def test_videos_without_a_class_cannot_be_chosen_by_class(tmp_path):
    path = table(make(tmp_path, "a.mp4", "b.mp4"), "path,label,split\na.mp4,run,train\nb.mp4,,train\n")
    assert len(open_source(Data(path=path)).split("train")) == 2
    with pytest.raises(UserError, match=r"data.videos_per_class chooses videos of each class, and b.mp4 .* has none"):
        open_source(Data(path=path, videos_per_class=1))
