"""Regions in batches: boxes lie where things are seen, in every frame and crop; bad files say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from filmstrip.data.annotations.regions import read_regions
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.regions import Regions
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError

SET = NarratedShapes(num_train=24, num_test=6, num_frames=4, size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SET.generate(tmp_path_factory.mktemp("regions") / "set")


def data(path: Path, **reads) -> Data:
    clip = Clip(num_frames=2, sampling="uniform", size=48, short_side=(64, 64))
    return Data(path=path, reads=Regions(max_length=16, **reads), clip=clip, batch_size=6, num_workers=0)


def seen(frame):
    """The box of what is brighter than the background, as fractions of the frame."""
    bright = frame.amax(dim=0) > 90
    rows, columns = bright.any(dim=1).nonzero()[:, 0], bright.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return None
    ends = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
    return ends / torch.tensor([frame.shape[2], frame.shape[1]] * 2)


def check(batch):
    """Every box is where the one shape is, to within two pixels."""
    checked = 0
    for video, boxes, lengths in zip(batch["video"], batch["boxes"], batch["phrase_length"]):
        for frame, box in zip(video, boxes[0]):
            if lengths[0] and (found := seen(frame)) is not None and (box[2:] - box[:2]).min() > 0.1:
                torch.testing.assert_close(box, found, rtol=0, atol=2.5 / 48)
                checked += 1
    return checked


def test_boxes_of_whole_frames_are_where_the_shape_is(folder):
    wanted = data(folder)
    source = open_source(wanted)
    batch = next(iter(EvalLoader(source, wanted, "test", batch_size=6)))
    assert list(source.kind.specification.faults(batch)) == []
    assert check(batch) >= 8
    shapes = read_regions(folder / "shapes.jsonl")
    for index, ids in zip(batch["index"], batch["phrase"]):
        name = source.split("test")[int(index)].name
        assert source.text_tokenizer.decode(ids[0].tolist()) == shapes[name][0].phrase


def test_boxes_follow_the_crop_of_training(folder):
    wanted = data(folder)
    loader = TrainLoader(open_source(wanted), wanted, seed=1)
    try:
        stream = loader.stream(0)
        batches = [next(stream) for _ in range(4)]
    finally:
        loader.close() if hasattr(loader, "close") else None
    assert all(batch["boxes"].shape == (6, 4, 2, 4) for batch in batches)
    assert sum(map(check, batches)) >= 20
    lengths = torch.cat([batch["phrase_length"] for batch in batches])
    assert (lengths[:, 0] == 0).any() and (lengths[:, 1:] == 0).all()  # a crop may leave the shape out


def test_what_is_no_region_is_refused_by_its_line(tmp_path):
    path = tmp_path / "regions.jsonl"
    good = {"path": "a.png", "regions": [{"phrase": "it", "boxes": [[0, 0, 1, 0.5]]}]}
    for bad, says in (
        ({"path": "a.png"}, "no regions"),
        ({"path": "a.png", "regions": [{"phrase": "it", "boxes": [[0, 0, 2, 1]]}]}, "fractions of the frame"),
        ({"path": "a.png", "regions": [{"phrase": " ", "boxes": [[0, 0, 1, 1]]}]}, "a phrase is empty"),
        ({"path": "a.png", "regions": [{"phrase": "it", "boxes": [0, 0, 1, 1]}]}, "boxes are a list"),
        ({"regions": []}, "path"),
    ):
        path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
        with pytest.raises(UserError, match=f"line 2.*{says}"):
            read_regions(path)
    path.write_text(f"{json.dumps(good)}\n\n")
    assert read_regions(path)["a.png"][0].phrase == "it"


def test_a_set_without_regions_is_refused_before_anything_is_read(folder, tmp_path):
    other = tmp_path / "regions.jsonl"
    other.write_text(json.dumps({"path": "none.mp4", "regions": []}))
    with pytest.raises(UserError, match="no region of any file"):
        open_source(data(folder, regions=other))
    (tmp_path / "manifest.csv").write_text(f"path,split,caption\n{folder / 'train/00000.mp4'},train,a thing\n")
    with pytest.raises(UserError, match=r"no regions.*|no region of any"):
        open_source(data(tmp_path))
