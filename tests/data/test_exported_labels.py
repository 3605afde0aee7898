"""Exports of CVAT, VIA and Label Studio become manifests, whose rows show what was labelled."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from small_videos import encode, settings_of

from filmstrip.__main__ import main
from filmstrip.data.annotations.ava import read_boxes
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import open_path
from filmstrip.data.tools.labels import convert_labels
from filmstrip.errors import UserError

LENGTH, FPS = 12, 25


@pytest.fixture
def films(tmp_path) -> Path:
    """Two grey films of 12 frames that brighten by 8 from frame to frame."""
    for name in ("kitchen", "garden"):
        encode(tmp_path / f"films/{name}.mp4", 20)
    return tmp_path


def rows(path: Path) -> list[tuple[str, str, str, str]]:
    with path.open() as file:
        return [(Path(row["path"]).name, row["label"], row["start"], row["end"]) for row in csv.DictReader(file)]


def box(frame: int, outside: int = 0, keyframe: int = 1, sides=(3.2, 2.4, 16.0, 12.0)) -> str:
    corners = " ".join(f'{key}="{side}"' for key, side in zip(("xtl", "ytl", "xbr", "ybr"), sides))
    return f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="{keyframe}" {corners} z_order="0"></box>'


def cvat_for_video(*tracks: str, source: str = "kitchen.mp4") -> str:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>7</id><name>breakfast</name><size>12</size>
<mode>interpolation</mode><start_frame>0</start_frame><stop_frame>11</stop_frame><frame_filter></frame_filter>
<labels><label><name>person</name></label></labels>
<original_size><width>32</width><height>24</height></original_size><source>{source}</source></task>
<dumped>2024-05-01 10:00:00.000000+00:00</dumped></meta>{"".join(tracks)}</annotations>"""


def test_tracks_of_cvat_are_parts_for_as_long_as_they_are_shown(films):
    pour = [box(2), box(3, keyframe=0), box(4), box(5, outside=1), box(8), box(9, outside=1)]
    tracks = [
        f'<track id="0" label="pour" source="manual">{"".join(pour)}</track>',
        f'<track id="1" label="stir" source="manual">{box(10)}{box(11, keyframe=0)}</track>',
    ]
    (films / "annotations.xml").write_text(cvat_for_video(*tracks))
    out, boxes = films / "labels.csv", films / "boxes.csv"
    words = ["data", "convert", films / "annotations.xml", "--layout", "cvat", "--videos", films / "films"]
    assert main([*map(str, words), "--out", str(out), "--boxes", str(boxes)]) == 0
    assert rows(out) == [
        ("kitchen.mp4", "pour", "0.08", "0.2"),
        ("kitchen.mp4", "pour", "0.32", "0.36"),
        ("kitchen.mp4", "stir", "0.4", "0.48"),
    ]
    found = read_boxes(boxes)
    assert sorted(found) == [("kitchen", 0.08), ("kitchen", 0.16), ("kitchen", 0.32), ("kitchen", 0.4)]
    assert found["kitchen", 0.08][0].box == (0.1, 0.1, 0.5, 0.5)
    assert [actor.person for actors in found.values() for actor in actors] == [0, 0, 0, 1]
    source = open_path(out)
    assert source.classes == ("pour", "stir") and len(source.samples) == 3
    data = settings_of(out)
    for split in source.splits:
        for batch in EvalLoader(source, data, split):
            for video, (first, last), label in zip(batch["video"], batch["span"], batch["label"]):
                level = 20 + 8 * FPS * float(first)
                assert abs(float(video[0].float().mean()) - level) < 2
                assert last < 0.37 if source.classes[label] == "pour" else first >= 0.4


def test_tags_of_cvat_are_parts_of_frames_in_a_row(films):
    images = "".join(
        f'<image id="{i}" name="frame_{2 * i:06d}" width="32" height="24">{tags}</image>'
        for i, tags in enumerate(
            ['<tag label="open" source="manual"></tag>'] * 2 + [""] + ['<tag label="open" source="manual"></tag>']
        )
    )
    text = cvat_for_video(images).replace("<frame_filter></frame_filter>", "<frame_filter>step=2</frame_filter>")
    with zipfile.ZipFile(films / "export.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
        archive.writestr("images/frame_000000.png", b"")
    convert_labels("cvat", films / "export.zip", films / "films", films / "out.csv")
    assert rows(films / "out.csv") == [
        ("kitchen.mp4", "open", "0.0", "0.16"),
        ("kitchen.mp4", "open", "0.24", "0.32"),
    ]


def test_tasks_of_a_project_of_cvat_have_films_of_their_own(films):
    task = "<task><id>{}</id><name>{}</name><size>12</size><frame_filter></frame_filter><source>{}</source></task>"
    tasks = task.format(1, "one", "kitchen.mp4") + task.format(2, "two", "garden.mp4")
    tracks = "".join(
        f'<track id="{i}" label="walk" task_id="{i}" subset="default">{box(i)}{box(i + 3, outside=1)}</track>'
        for i in (1, 2)
    )
    project = f"<annotations><version>1.1</version><meta><project><tasks>{tasks}</tasks></project></meta>{tracks}"
    (films / "films/annotations.xml").write_text(f"{project}</annotations>")
    convert_labels("cvat", films / "films/annotations.xml", films / "films", films / "films/out.csv")
    assert rows(films / "films/out.csv") == [
        ("garden.mp4", "walk", "0.08", "0.2"),
        ("kitchen.mp4", "walk", "0.04", "0.16"),
    ]
    with (films / "films/out.csv").open() as file:
        assert next((row["path"], row["group"]) for row in csv.DictReader(file)) == ("garden.mp4", "garden")


def test_datumaro_of_cvat(films):
    def item(frame, *annotations):
        image = {"path": f"frame_{frame:06d}.png", "size": [24, 32]}
        return {
            "id": f"frame_{frame:06d}",
            "annotations": list(annotations),
            "attr": {"frame": frame},
            "image": image,
        }

    def tracked(outside=False):
        told = {"occluded": False, "track_id": 3, "keyframe": True, "outside": outside}
        return {"type": "bbox", "label_id": 1, "attributes": told, "group": 0, "bbox": [3.2, 2.4, 12.8, 9.6]}

    tag = {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": 0}
    content = {
        "info": {},
        "categories": {"label": {"labels": [{"name": "open", "parent": ""}, {"name": "person", "parent": ""}]}},
        "items": [item(0), item(1, tag), item(2, tag, tracked()), item(3, tracked()), item(4, tracked(outside=True))],
    }
    (films / "default.json").write_text(json.dumps(content))
    film = films / "films/garden.mp4"
    found = convert_labels("cvat", films / "default.json", film, films / "out.csv", boxes=films / "boxes.csv")
    assert rows(films / "out.csv") == [
        ("garden.mp4", "open", "0.04", "0.12"),
        ("garden.mp4", "person", "0.08", "0.16"),
    ]
    assert found.boxes == 2 and np.allclose(
        read_boxes(films / "boxes.csv")["garden", 0.08][0].box, (0.1, 0.1, 0.5, 0.5)
    )


def via_project(**metadata) -> dict:
    return {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
        "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}},
        "attribute": {
            "1": {
                "aname": "Action",
                "anchor_id": "FILE1_Z2_XY0",
                "type": 4,
                "options": {"0": "pour", "1": "stir"},
                "default_option_id": "",
            },
            "2": {"aname": "Note", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}, "default_option_id": ""},
        },
        "file": {
            "1": {"fid": "1", "fname": "kitchen.mp4", "type": 4, "loc": 1, "src": ""},
            "2": {"fid": "2", "fname": "sub/garden.mp4", "type": 4, "loc": 2, "src": "sub/garden.mp4"},
        },
        "metadata": metadata,
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": [2]}},
    }


def test_segments_of_via(films):
    project = via_project(
        **{
            "1_a": {"vid": "1", "flg": 0, "z": [0.08, 0.2], "xy": [], "av": {"1": "0"}},
            "1_b": {"vid": "1", "flg": 0, "z": [0.24, 0.4], "xy": [], "av": {"1": "1", "2": "badly"}},
            "1_c": {"vid": "1", "flg": 0, "z": [0.1], "xy": [2, 1, 1, 9, 9], "av": {"2": "a region"}},
            "2_d": {"vid": "2", "flg": 0, "z": [0, 0.12], "xy": [], "av": {"1": "0"}},
        }
    )
    (films / "via.json").write_text(json.dumps(project))
    with pytest.raises(UserError, match=r"labels films by 'Action', 'Note': say by which attribute \(--attr"):
        convert_labels("via", films / "via.json", films / "films", films / "out.csv")
    convert_labels("via", films / "via.json", films / "films", films / "out.csv", attribute="Action")
    assert rows(films / "out.csv") == [
        ("garden.mp4", "pour", "0.0", "0.12"),
        ("kitchen.mp4", "pour", "0.08", "0.2"),
        ("kitchen.mp4", "stir", "0.24", "0.4"),
    ]
    whole = via_project(**{"1_a": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"1": "1"}}})
    (films / "via.json").write_text(json.dumps(whole))
    convert_labels("via", films / "via.json", films / "films", films / "out.csv")
    assert rows(films / "out.csv") == [("kitchen.mp4", "stir", "", "")]


def key(frame: int, enabled: bool = True) -> dict:
    place = {"x": 10, "y": 10, "width": 40, "height": 40, "rotation": 0}
    return {"frame": frame, "enabled": enabled, "time": (frame - 1) / FPS, **place}


def test_timelines_boxes_and_choices_of_label_studio(films):
    ranges = {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["pour", "both"]}
    boxes = {"framesCount": 12, "labels": ["person"], "sequence": [key(1), key(5, False), key(9)]}
    results = [
        {"from_name": "events", "type": "timelinelabels", "value": ranges},
        {"from_name": "box", "type": "videorectangle", "value": boxes},
        {"from_name": "where", "type": "choices", "value": {"choices": ["indoors"]}},
        {"from_name": "sound", "type": "labels", "value": {"start": 0.1, "end": 0.3, "labels": ["speech"]}},
    ]
    tasks = [
        {
            "id": 1,
            "data": {"video": "/data/upload/1/0a1b2c3d-kitchen.mp4"},
            "annotations": [{"was_cancelled": True, "result": results[:1]}, {"result": results}],
        },
        {
            "id": 2,
            "data": {"video": "/data/local-files/?d=films/lost.mp4"},
            "annotations": [{"result": results[2:3]}],
        },
    ]
    (films / "ls.json").write_text(json.dumps(tasks))
    with pytest.raises(UserError, match="labels films by 'box', 'events', 'sound', 'where': say by which control"):
        convert_labels("label_studio", films / "ls.json", films, films / "out.csv")
    with pytest.raises(UserError, match="has no control 'who' that labels any film; it has 'box'"):
        convert_labels("label_studio", films / "ls.json", films, films / "out.csv", attribute="who")
    expected = {
        "events": [("pour", "0.08", "0.2"), ("both", "0.08", "0.2")],
        "box": [("person", "0.0", "0.2"), ("person", "0.32", "0.48")],  # the frame that switches it off still has it
        "where": [("indoors", "", "")],
        "sound": [("speech", "0.1", "0.3")],
    }
    for name, parts in expected.items():
        found = convert_labels("label_studio", films / "ls.json", films, films / "out.csv", attribute=name)
        assert rows(films / "out.csv") == [("kitchen.mp4", *part) for part in parts]
        assert len(found.missing) == (name == "where")
    options = {"attribute": "box", "boxes": films / "boxes.csv"}
    assert convert_labels("label_studio", films / "ls.json", films, films / "out.csv", **options).boxes == 3
    assert read_boxes(films / "boxes.csv")["kitchen", 0.32][0].box == (0.1, 0.1, 0.5, 0.5)


def test_the_short_form_of_label_studio_and_another_rate(films):
    short = [
        {
            "video": "s3://bucket/garden.mp4",
            "id": 4,
            "label": [{"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["dig"]}],
        }
    ]
    (films / "ls.json").write_text(json.dumps(short))
    convert_labels("label_studio", films / "ls.json", films, films / "out.csv", fps=10)
    assert rows(films / "out.csv") == [("garden.mp4", "dig", "0.0", "0.2")]


def test_what_cannot_be_converted_is_refused_in_words(films, capsys):
    def refused(tool, content, match, **options):
        (films / "x.json").write_text(content)
        with pytest.raises(UserError, match=match):
            convert_labels(tool, films / "x.json", films / "films", options.pop("out", films / "out.csv"), **options)

    refused("via", "{}", r"is not a project of VIA 3: KeyError 'attribute'")
    refused("via", json.dumps(via_project()), "has no segments with a label")
    refused("label_studio", '[{"data": {"video": "a.mp4"}, "annotations": []}]', "labels? .*timeline")
    refused("label_studio", "[1]", "is not an export of Label Studio")
    refused("cvat", '{"items": []}', r"is not an export of CVAT .*KeyError 'categories'")
    refused("cvat", "{}", "a manifest of labels is a table", out=films / "out.mp4")
    refused("tator", "{}", "no labelling tool 'tator'; there are cvat, via, label_studio")
    (films / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "b">]><annotations/>')
    with pytest.raises(UserError, match="defines entities"):
        convert_labels("cvat", films / "a.xml", films, films / "out.csv")
    (films / "a.xml").write_text(cvat_for_video(f'<track label="a">{box(1)}</track>', source="else.mp4"))
    with pytest.raises(UserError, match=r"holds no film of .* that can be read: else.mp4: it is not below"):
        convert_labels("cvat", films / "a.xml", films, films / "out.csv")
    words = ["data", "convert", str(films), "--layout", "teco", "--out", str(films / "o"), "--fps", "3"]
    assert main(words) == 2 and "are for labels (cvat, via, label_studio)" in capsys.readouterr().err
    assert not (films / "out.csv").exists()
