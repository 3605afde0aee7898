"""Measures of edited videos: on videos whose motion is known, and by type on a table of edits."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.errors import UserError
from filmstrip.evals.video_edit import VideoEditing, consistency, flow_error
from filmstrip.models.raft import RAFT, SMALL
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.runs.evaluation import Subject
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
def subject(tmp_path):
    run = systems.find("editing.moca:tiny")
    folder = EditedScenes(size=32, num_train=2, num_test=2).generate(tmp_path / "set")
    data = replace(run.data, path=folder, num_workers=0)
    source = open_source(data)
    run = replace(run, data=data).bound(source.info("train"))
    torch.manual_seed(0)
    objective = replace(run.objective, sampling=DiffusionSampling(steps=1)).build().eval()
    return Subject(objective=objective, source=source, data=data, device=torch.device("cpu"))


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
