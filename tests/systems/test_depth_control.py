"""Depth control: what the branch adds, how it begins, and editing by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import info_for
from editors import built, request

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.models.video_unet import to_diffusers_unet
from filmstrip.runs.depth_models import estimate_depth
from filmstrip.systems.editing.depth_control import normalised
from filmstrip.video import write_video

ADDRESS = "editing.depth_control:tiny"


def fresh(address=ADDRESS, **changes):
    run = systems.find(address)
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    return replace(run.objective, **changes).build().eval()


@pytest.fixture(scope="module")
def trained():
    """One whose branch adds something."""
    objective, batch = built(ADDRESS)
    torch.manual_seed(1)
    for parameter in objective.branch.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return objective, batch


def absent(*names):
    return {name: torch.tensor([name in names] * 2) for name in ("depth", "text")}


@torch.no_grad()
def predicted(objective, batch, *names, **changes):
    batch = batch | changes
    latents = objective.encode(batch["video"])
    known = objective.known(batch, latents)
    return objective.run(known, latents, torch.tensor([300.0, 700.0]), absent(*names), None)


def test_a_new_branch_is_a_copy_of_the_way_down_and_changes_nothing(trained):
    _, batch = trained
    objective = fresh()
    own = objective.unet.state_dict()
    shared = {n: w for n, w in objective.branch.state_dict().items() if n in own}
    assert {"conv_in.weight", "middle.1.residual.conv2.weight"} < shared.keys()
    assert all(torch.equal(weight, own[name]) for name, weight in shared.items())
    assert torch.equal(predicted(objective, batch), predicted(objective, batch, "depth"))


def test_depth_tells_in_any_unit_and_only_where_it_is_present(trained):
    objective, batch = trained
    told, without = predicted(objective, batch), predicted(objective, batch, "depth")
    assert (told - without).abs().max() > 0.01 * without.abs().max()
    other = predicted(objective, batch, depth=3 * batch["depth"] + 7)
    torch.testing.assert_close(other, told, rtol=1e-3, atol=1e-3)
    assert torch.equal(predicted(objective, batch, "depth", depth=batch["depth"].flip(0)), without)
    assert normalised(torch.full((1, 2, 1, 4, 4), 5.0)).abs().max() == 0
    maps = normalised(batch["depth"])
    assert maps.amin(dim=(1, 2, 3, 4)).tolist() == [0, 0] and maps.amax(dim=(1, 2, 3, 4)).tolist() == [1, 1]


@torch.no_grad()
def test_edits_follow_depth_and_seed_and_not_their_batch(trained):
    objective, batch = trained
    asked = request(batch, depth=batch["depth"])
    edited = objective.edit(asked)
    assert edited.shape == batch["video"].shape and 0 <= edited.min() <= edited.max() <= 1
    alone = torch.cat([objective.edit(row) for row in asked.rows()])
    torch.testing.assert_close(alone, edited, rtol=1e-3, atol=1e-3)
    assert (objective.edit(replace(asked, depth=batch["depth"].flip(0))) - edited).abs().max() > 1e-3
    without = [objective.edit(replace(asked, depth=d, guidance={"depth": 0.0})) for d in (asked.depth, -asked.depth)]
    assert torch.equal(*without)
    with pytest.raises(UserError, match="edits by depth maps of the source"):
        objective.edit(request(batch))


def test_it_begins_with_a_network_of_text_to_video(trained):
    given, _ = built("editing.sdedit:tiny")
    objective = fresh()
    objective.load_state_dict(objective.taken_from(given), strict=False)
    for name, weight in given.unet.state_dict().items():
        assert torch.equal(objective.unet.state_dict()[name], weight)
        assert torch.equal(objective.branch.state_dict().get(name, weight), weight)
    own, _ = trained
    objective.load_state_dict(objective.taken_from(own), strict=False)
    assert all(torch.equal(w, own.branch.state_dict()[n]) for n, w in objective.branch.state_dict().items())
    other = fresh()
    other.load_state_dict(other.from_published(to_diffusers_unet(given.unet.state_dict())), strict=False)
    assert torch.equal(other.branch.conv_in.weight, given.unet.conv_in.weight)


def test_the_published_method_trains_the_branch_alone_and_needs_a_beginning():
    config = replace(systems.find(ADDRESS).objective, frozen_unet=True)
    assert "name a run of text to video" in config.needs_init()
    objective = fresh(frozen_unet=True)
    learns = {name.split(".")[0] for name, p in objective.named_parameters() if p.requires_grad}
    assert learns == {"branch", "text"}
    with pytest.raises(UserError, match=r"halve depth maps 1 times, and latents are smaller than frames by 4 x 4"):
        fresh(picture_widths=(8, 8))


def test_a_run_edits_a_file_by_its_maps_by_those_that_are_given_and_by_a_film_in_grey(tmp_path, capsys):
    edits = tmp_path / "set"
    sizes = ["--num-train", "4", "--num-test", "1", "--size", "32"]
    assert main(["data", "make", "edits", "--out", str(edits), "--depth", *sizes]) == 0
    folder, video, out = tmp_path / "run", edits / "test/00000.mp4", tmp_path / "out.mp4"
    options = ["--train.steps", "1", "--data.num-workers", "0", "--data.batch-size", "2", "--out", str(folder)]
    assert main(["train", "editing.depth_control", "--data", str(edits), *options]) == 0
    ask = ["edit", str(folder), str(video), "--to", "it", "--type", "style", "--steps", "1", "--out", str(out)]
    assert main(ask) == 0 and out.exists()
    own = edits / "test/00000.depth.npz"
    maps = np.load(own)["depth"]
    assert maps.shape == (8, 32, 32) and set(np.unique(maps)) > {0, 255}
    np.save(tmp_path / "maps.npy", maps)
    write_video(tmp_path / "grey.mp4", torch.from_numpy(maps)[:, None].expand(-1, 3, -1, -1), 4)
    own.unlink()
    assert main(ask) == 2 and "there is no" in capsys.readouterr().err
    for given in ("maps.npy", "grey.mp4"):
        assert main([*ask, "--depth", str(tmp_path / given)]) == 0
    np.save(tmp_path / "few.npy", maps[:3])
    assert main([*ask, "--depth", str(tmp_path / "few.npy")]) == 2
    assert "depth maps of 3 frames, and frame 7" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", disparity=maps)
    assert main([*ask, "--depth", str(tmp_path / "other.npz")]) == 2
    assert "has no array 'depth'; it has disparity" in capsys.readouterr().err
    assert main([*ask, "--depth", str(tmp_path / "maps.npy"), "--by", "editing.sdedit"]) == 2
    assert "reads no depth: leave out --depth" in capsys.readouterr().err
    assert main(["eval", str(folder), "--protocol", "video_edit", "--num-edits", "1"]) == 2


def test_a_folder_of_the_hub_estimates_depth(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    network = transformers.DPTForDepthEstimation(config).eval()
    network.save_pretrained(tmp_path / "dpt")
    video = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = estimate_depth(str(tmp_path / "dpt"), video, torch.device("cpu"))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((video.float() / 255 - mean) / std).predicted_depth[:, None]
    assert found.shape == (3, 1, 32, 32) and found.std() > 0
    whole = torch.nn.functional.interpolate(expected, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, whole)
