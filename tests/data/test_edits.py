"""Tables of edits, and the synthetic ones with their true edited videos."""

import json

import numpy as np
import pytest
import torch

from filmstrip.data.edits import FRAMES, TYPES, edit_type, read_edits
from filmstrip.data.synthetic.edits import STYLES, EditedScenes
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video

HEADER = "video,source_prompt,edit_prompt,type,target\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("edits") / "set"
    return EditedScenes(num_train=2, num_test=3, size=32).generate(out)


def test_every_test_video_is_edited_in_every_way_and_only_as_asked(folder):
    edits = read_edits(folder)
    assert [edit.type for edit in edits] == 3 * list(TYPES)
    scenes = {line["path"]: line for line in map(json.loads, (folder / "scenes.jsonl").read_text().splitlines())}
    changes = {
        "style": {"style"},
        "background": {"ground"},
        "object": {"colour", "form"},
        "motion": {"way"},
        "multi_spatial": {"ground", "colour", "form"},
        "multi_motion": {"way", "colour", "form"},
    }
    kept = ("colour", "form", "ground", "style", "way", "speed", "start", "turn", "texture")
    for edit in edits:
        source, target = (scenes[str(path.relative_to(folder))] for path in (edit.video, edit.target))
        assert {name for name in kept if source[name] != target[name]} == changes[edit.type]
        assert (edit.source_prompt, edit.edit_prompt) == (source["caption"], target["caption"])
        assert (source["centres"] == target["centres"]) == ("way" not in changes[edit.type])
    assert FRAMES.keys() == set(TYPES)


def test_files_show_what_the_table_says(folder):
    edit = read_edits(folder)[0]
    video, target = (read_video(path).video for path in (edit.video, edit.target))
    assert video.shape == target.shape == (8, 3, 32, 32)
    assert not torch.equal(video, target) and edit.edited_first_frame.is_file()


@pytest.mark.parametrize("style", STYLES)
def test_a_shape_is_where_the_scene_says_and_stays_in_the_frame(style):
    made, rng = EditedScenes(size=64), np.random.default_rng(3)
    for _ in range(8):
        scene = made.scene(rng)
        path = scene.path(8)
        assert (path > 0).all() and (path < 1).all()
    from dataclasses import replace

    moving = made.render(replace(scene, style=style, way="right")).float()
    still = made.render(replace(scene, style=style, way="right", speed=1e-9)).float()
    changed = (moving - still).abs().sum(dim=1)[-1] > 20
    x, y = changed.nonzero().float().mean(dim=0).flip(0) / 64
    ends = replace(scene, way="right").path(8)
    middle = (ends[0] + ends[-1]) / 2
    assert (float(x), float(y)) == pytest.approx(tuple(middle), abs=0.06)


def test_a_bad_table_is_refused_by_row(tmp_path):
    table = tmp_path / "edits.csv"
    with pytest.raises(UserError, match="holds no edits"):
        read_edits(tmp_path)
    table.write_text("video,type\na.mp4,style\n")
    with pytest.raises(UserError, match="source_prompt, edit_prompt"):
        read_edits(tmp_path)
    table.write_text(HEADER + "a.mp4,a cat,a dog,object,\nb.mp4,,a dog,object,\n")
    with pytest.raises(UserError, match="row 3: source_prompt is empty"):
        read_edits(table)
    table.write_text(HEADER + "a.mp4,a cat,a dog,objekt,\n")
    with pytest.raises(UserError, match=r"row 2: .*did you mean 'object'"):
        read_edits(table)
    table.write_text(HEADER + "v/a.mp4,a cat,a dog,multi-motion,\n")
    (edit,) = read_edits(table)
    assert edit.video == tmp_path / "v/a.mp4" and edit.type == "multi_motion" and edit.target is None


def test_an_unknown_type_is_refused_with_the_nearest():
    assert edit_type("Multi-Spatial") == "multi_spatial"
    with pytest.raises(UserError, match="did you mean 'background'"):
        edit_type("backgrund")
