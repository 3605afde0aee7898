"""Captioned clips with depth maps, from real files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.depth import depth_file, read_depth, shown_depth, write_depth
from filmstrip.data.kinds.captioned_depth import CaptionedDepth
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.edits import GROUNDS, EditedScenes
from filmstrip.errors import UserError

SET = EditedScenes(num_train=4, num_test=2, size=48, depth=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = SET.generate(tmp_path_factory.mktemp("deep") / "set")
    return Data(
        path=folder,
        reads=CaptionedDepth(max_length=16),
        clip=Clip(num_frames=4, stride=1, size=32, short_side=(40, 56)),
        augment=Augment(mirror=0.0),
        batch_size=2,
        num_workers=0,
    )


def test_the_true_depth_is_where_the_shape_is():
    rng = np.random.default_rng(0)
    for _ in range(5):
        scene = replace(SET.scene(rng), style="")
        video, near = SET.render(scene).float(), SET.depths(scene)
        assert near.shape == (8, 48, 48) and near.dtype == torch.uint8
        dark, bright = (torch.tensor(c).view(1, 3, 1, 1) for c in GROUNDS[scene.ground])
        inside = ((video > dark - 8) & (video < bright + 8)).all(dim=1)  # looks like the ground
        assert inside[near == 0].float().mean() > 0.98 and not inside[near == 255].any()
        assert 0.01 < (near == 255).float().mean() < 0.12


def test_maps_are_cut_as_the_clips_are(data):
    source = open_source(data)
    assert "depth" in source.gives
    batch = next(TrainLoader(source, data, seed=0).stream(0))
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["depth"].shape == (2, 4, 1, 32, 32) and batch["depth"].amax() > 200
    # Frames whose shapes are known: where a map is near, the video differs from its mean over time or place.
    for rows in (batch, next(iter(EvalLoader(source, data, "test", num_clips=1)))):
        for video, depth in zip(rows["video"].float(), rows["depth"]):
            near, far = depth > 250, depth < 5
            colour = (video * near).sum(dim=(0, 2, 3)) / near.sum()
            spread = ((video - colour.view(3, 1, 1)).abs() * near).sum() / near.sum() / 3
            outside = ((video - colour.view(3, 1, 1)).abs() * far).sum() / far.sum() / 3
            assert spread < 0.6 * outside


def test_maps_of_other_sizes_and_of_some_frames():
    maps = torch.arange(3 * 4 * 8, dtype=torch.float32).view(3, 4, 8)
    found = shown_depth(maps, [2, 0], (0.5, 0.0, 1.0, 1.0), 4)
    assert torch.equal(found[:, 0], maps[[2, 0], :, 4:])
    assert shown_depth(maps, [1], (0, 0, 1, 1), 16).shape == (1, 1, 16, 16)
    with pytest.raises(UserError, match="depth maps of 3 frames, and frame 5 is shown"):
        shown_depth(maps, [5], (0, 0, 1, 1), 4)


def test_files_that_are_no_maps_are_named(tmp_path):
    path = tmp_path / "clip.depth.npz"
    assert depth_file(tmp_path / "clip.mp4") == path
    write_depth(torch.ones(2, 3, 4), path)
    assert torch.equal(read_depth(path), torch.ones(2, 3, 4))
    for written, said in (
        (lambda: np.savez(path, depth=np.ones((3, 4))), r"float64 of shape \(3, 4\)"),
        (lambda: np.savez(path, depth=np.full((1, 2, 2), np.nan)), "finite numbers"),
        (lambda: np.savez(path, other=np.ones(3)), "no array 'depth'; it has other"),
        (lambda: path.write_bytes(b"nothing"), "holds no depth maps"),
        (path.unlink, "cannot be read as depth maps"),
    ):
        written()
        with pytest.raises(UserError, match=said):
            read_depth(path)


def test_videos_without_maps_are_told(data, tmp_path):
    folder = replace(SET, depth=False).generate(tmp_path / "set")
    with pytest.raises(UserError, match=r"has no depth maps: expected a file such as 0000\d\.depth\.npz"):
        open_source(replace(data, path=folder))
    write_depth(torch.ones(8, 4, 4), folder / "train/00000.depth.npz")
    with pytest.raises(UserError, match="5 of 6 samples have no depth maps"):
        open_source(replace(data, path=folder))
