"""Measures of edited videos: on videos whose motion is known, and by type on a table of edits."""

import math
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.edited_films import read_edited
from filmstrip.data.edits import TYPES, read_edits
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.errors import UserError
from filmstrip.evals.video_edit import VideoEditing, consistency, flow_error
from filmstrip.models.raft import RAFT, SMALL
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.runs.config import write_config
from filmstrip.runs.contents import metrics_of
from filmstrip.runs.editors import with_network
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.loading import save_data_info
from filmstrip.video import read_video
from filmstrip.weights.released import to_published


def moving(shift, frames=4):
    generator = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 120, 120, generator=generator), 5, 1)[0]
    return torch.stack([texture[:, 20:84, 40 - shift * t : 104 - shift * t] for t in range(frames)])[None]


def test_flow_error_is_the_difference_of_speeds_and_a_moving_texture_is_consistent():
    slow, fast = moving(1), moving(3)
    assert flow_error(slow, slow).item() == 0
    assert flow_error(fast, slow).item() == pytest.approx(2, abs=0.4)
    flicker = slow + 0.2 * torch.rand(slow.shape, generator=torch.Generator().manual_seed(1))
    assert consistency(slow).item() > consistency(flicker).item() + 5


@pytest.fixture
def run(tmp_path):
    found = systems.find("editing.moca:tiny")
    folder = EditedScenes(size=32, num_train=2, num_test=2).generate(tmp_path / "set")
    data = replace(found.data, path=folder, synthetic=None, num_workers=0)
    found = replace(found, data=data, objective=replace(found.objective, sampling=DiffusionSampling(steps=1)))
    return found.bound(open_source(data).info("train"))


def save(run, objective, folder):
    """A run folder as training leaves it."""
    source = open_source(run.data)
    folder.mkdir()
    write_config(run, folder / "config.json")
    save_file(objective.state_dict(), folder / "weights.safetensors")
    save_data_info(source.info("train"), folder)
    source.record(folder)


def save_clip(run, folder):
    """A model of video and text with random weights, which has read the captions of a run."""
    towers = systems.find("language.clip")
    towers = replace(towers, data=replace(towers.data, path=run.data.path, synthetic=None))
    towers = towers.bound(open_source(towers.data).info("train"))
    save(towers, towers.objective.build(), folder)


@pytest.fixture
def subject(run):
    torch.manual_seed(0)
    source = open_source(run.data)
    objective = run.objective.build().eval()
    return Subject(objective=objective, source=source, data=run.data, device=torch.device("cpu"))


def test_edits_are_measured_by_type(subject):
    protocol = VideoEditing(frames="true", num_edits=1)
    protocol.check(subject)
    found = dict(protocol(subject))
    assert all(map(math.isfinite, found.values()))
    assert {
        "psnr",
        "source_psnr",
        "first_frame_psnr",
        "flow_error",
        "consistency",
        "psnr/multi_motion",
    } <= found.keys()
    spatial = [found[f"flow_error/{kind}"] for kind in ("style", "background", "object", "multi_spatial")]
    assert found["flow_error"] == pytest.approx(sum(spatial) / 4)


def test_a_network_estimates_flow_where_its_weights_are_named(subject, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "raft_small.safetensors"
    save_file(to_published(RAFT(SMALL)), file)
    with pytest.raises(UserError, match="RAFT is a network, and needs its weights"):
        VideoEditing(flow="raft").check(subject)
    with pytest.raises(UserError, match=r"none\.pth is not there"):
        VideoEditing(flow="raft", flow_weights=tmp_path / "none.pth").check(subject)
    subject.source.root.joinpath("edits.csv").write_text("\n".join(_one_edit(subject.source.root / "edits.csv")))
    networks = [VideoEditing(num_edits=1), VideoEditing(num_edits=1, flow="raft", flow_weights=file)]
    (dis, raft) = (dict(protocol(subject)) for protocol in networks)
    assert raft["psnr"] == dis["psnr"] and raft["flow_error"] != dis["flow_error"]
    assert all(map(math.isfinite, raft.values()))


def _one_edit(table):
    head, *rows = table.read_text().splitlines()
    return [head, next(row for row in rows if ",style," in row)]


def test_edited_films_are_kept_beside_those_of_other_methods(subject, tmp_path):
    out = tmp_path / "films"
    protocol = VideoEditing(num_edits=1, out=out)
    first, second = replace(subject, name="moca", run="runs/moca"), replace(subject, name="again", run="runs/moca")
    protocol.check(first)
    found = dict(protocol(first))
    dict(protocol(second))
    films = read_edited(out)
    assert {film.method for film in films} == {"moca", "again"} and len(films) == 12
    assert sorted({film.type for film in films}) == sorted(TYPES)
    own = [film for film in films if film.method == "moca"]
    assert found["psnr"] == pytest.approx(sum(film.measures["psnr"] for film in own) / 6, rel=1e-4)
    edits = read_edits(subject.source.root)
    for film in own:
        assert (film.edit_prompt, film.type) == (edits[film.number].edit_prompt, edits[film.number].type)
        source = read_video(film.source).video.float()
        assert (source - read_video(edits[film.number].video).video.float()).abs().mean() < 4
        assert read_video(film.film).video.shape == source.shape
    other = replace(first, run="runs/other")
    with pytest.raises(UserError, match="edits by moca with the run runs/moca"):
        protocol.check(other)
    with pytest.raises(UserError, match="cannot be kept as source"):
        protocol.check(replace(first, name="source"))


def test_other_methods_edit_with_the_network_of_a_run(run, subject, tmp_path, capsys):
    folder, clip, out = tmp_path / "moca", tmp_path / "small clip", tmp_path / "films"
    save(run, subject.objective, folder)
    save_clip(run, clip)
    asked = ["eval", str(folder), "--protocol", "video_edit", "--num-edits", "1", "--out", str(out)]
    asked += ["--clip", str(clip)]
    assert main([*asked, "--by", "editing.sdedit", "--by=editing.masactrl:tiny"]) == 0
    said = capsys.readouterr().out
    assert all(
        name in said for name in ("\nsdedit/psnr/style", "\nmasactrl:tiny/flow_error", str(out / "report.html"))
    )
    films = read_edited(out)
    assert [film.method for film in films[:3]] == ["moca", "sdedit", "masactrl:tiny"] and len(films) == 18
    assert len({film.film.read_bytes() for film in films[:3]}) == 3
    (kept,) = [row for row in metrics_of(folder) if "eval/psnr" in row]
    own = [film.measures["psnr"] for film in films if film.method == "sdedit"]
    assert kept["eval/sdedit/psnr"] == pytest.approx(sum(own) / 6, rel=1e-4)
    assert {f"eval/sdedit/m_{name}@small clip" for name in ("sim", "dir", "geo")} <= kept.keys()
    assert 0 <= kept["eval/m_geo@small clip"] <= 1 and "eval/true_m_dir@small clip" in kept
    assert "M_dir by small clip" in (out / "report.html").read_text()
    assert (out / "masactrl-tiny" / f"{films[0].number:05d}.mp4").exists()


def test_candidates_of_an_edit_are_ordered_by_what_a_model_says_of_them(run, subject, tmp_path, capsys):
    save(run, subject.objective, tmp_path / "moca")
    save_clip(run, tmp_path / "clip")
    source = run.data.path / "test" / "00000.mp4"
    words = ["edit", str(tmp_path / "moca"), str(source), "--to", "a red disc moves left on sand", "--type", "motion"]
    words += ["--candidates", "3", "--clip", str(tmp_path / "clip"), "--out", str(tmp_path / "e.mp4")]
    assert main(words) == 2
    assert "--clip compares what changed" in capsys.readouterr().err and not (tmp_path / "e_1.mp4").exists()
    assert main([*words, "--from", "a blue disc moves left on grass"]) == 0
    made, _, told = capsys.readouterr().out.partition("by clip (Contrastive, clips of 4 frames), best first:\n")
    assert made.count("8 frames") == 3
    rows = re.findall(r"e_(\d)\.mp4: M_geo ([-.\d]+), M_dir ([-.\d]+), M_sim ([-.\d]+)", told)
    assert {number for number, *_ in rows} == {"1", "2", "3"}
    scores = [(float(geo), float(direction)) for _, geo, direction, _ in rows]
    assert scores == sorted(scores, reverse=True)
    for number, geo, direction, similarity in rows:
        low = max(0, float(direction)) * max(0, float(similarity))
        assert float(geo) == pytest.approx(math.sqrt(low), abs=0.03), number


def test_what_cannot_edit_by_a_method_is_said(run, tmp_path, capsys):
    assert main(["eval", str(tmp_path), "--by", "editing.sdedit"]) == 2
    assert "add --protocol video_edit" in capsys.readouterr().err
    assert main(["eval", str(tmp_path), "--protocol", "video_edit", *2 * ["--by", "editing.sdedit"]]) == 2
    assert "named twice" in capsys.readouterr().err
    given = run.objective.build()
    with pytest.raises(UserError, match="conditions of its own to learn"):
        with_network(run.objective, given, "runs/moca")
    with pytest.raises(UserError, match="does not edit by"):
        with_network(systems.find("recognition.vit:tiny").objective, given, "runs/moca")


def test_what_is_missing_is_said_before_anything_is_made(subject):
    table = subject.source.root / "edits.csv"
    lines = table.read_text().splitlines()
    place = lines[0].split(",").index("edited_first_frame")
    cut = [",".join(cell for i, cell in enumerate(line.split(",")) if i != place) for line in lines[:1]]
    table.write_text("\n".join([*cut, 'test/00000.mp4,"a","b",style,']) + "\n")
    with pytest.raises(UserError, match="no edited_first_frame"):
        VideoEditing(frames="true").check(subject)
    table.unlink()
    with pytest.raises(UserError, match="holds no edits"):
        VideoEditing().check(subject)
