"""Frames at their own shape: the published rules of sizes, and batches of several sizes with what tells them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from filmstrip import systems
from filmstrip.data.config import Clip, Data, NativeSize, PatchNumber, PixelRange
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.reading.views import read_views
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.nn.patches import NativeFrames
from filmstrip.video.geometry import fitting_size
from filmstrip.video.write import write_video

SIZES = ((48, 48), (96, 48), (40, 120), (30, 30), (200, 160), (64, 52))
"""Height and width of the pictures."""
NATIVE = PatchNumber(patch=8, max_patches=(16, 40), eval_patches=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes, whose rows brighten towards the bottom and columns towards the right."""
    root = tmp_path_factory.mktemp("native")
    rows = []
    for i, (height, width) in enumerate(SIZES * 2):
        y, x = np.mgrid[0:height, 0:width]
        frame = np.stack([255 * y / height, 255 * x / width, 0 * x + 20 * (i + 1)], axis=-1).astype(np.uint8)
        name = f"{i}.png"
        Image.fromarray(frame).save(root / name)
        rows.append({"path": name, "split": "train" if i < len(SIZES) else "test", "caption": f"picture {i}"})
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "split", "caption"])
        writer.writeheader()
        writer.writerows(rows)
    return root


def data(path: Path, native: NativeSize = NATIVE, **more) -> Data:
    clip = Clip(num_frames=1, sampling="uniform", size=48, native=native)
    return Data(path=path, reads=Captioned(max_length=8), clip=clip, batch_size=6, num_workers=0, **more)


def test_sizes_are_those_of_the_public_rule():
    processing = pytest.importorskip("transformers.models.siglip2.image_processing_pil_siglip2")
    theirs = processing.get_image_size_for_max_num_patches
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(n) for n in generator.integers(1, 3000, size=2))
        patch, most = int(generator.choice([14, 16, 32])), int(generator.choice([64, 128, 256, 576, 784, 1024]))
        assert fitting_size(height, width, patch=patch, max_patches=most) == theirs(height, width, patch, most)
    assert fitting_size(480, 640, patch=16, max_patches=256) == (224, 288)


def test_a_batch_holds_whole_frames_of_several_sizes(folder):
    wanted = data(folder)
    source = open_source(wanted)
    batch = next(iter(EvalLoader(source, wanted, "test", batch_size=6)))
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["is_patch"].shape == (6, 24)
    for (height, width), size, is_patch, video in zip(
        SIZES, batch["frame_size"].tolist(), batch["is_patch"], batch["video"][:, 0]
    ):
        assert tuple(size) == fitting_size(height, width, patch=8, max_patches=24)
        rows, columns = size[0] // 8, size[1] // 8
        assert rows * columns <= 24 and is_patch.tolist() == [True] * (rows * columns) + [False] * (
            24 - rows * columns
        )
        own = video[:, : size[0], : size[1]].float()
        assert own[0, -1].mean() > 225 and own[0, 0].mean() < 30 and own[1, :, -1].mean() > 225  # nothing is cut off
        assert (video[:, size[0] :] == 0).all() and (video[:, :, size[1] :] == 0).all()
    frames = NativeFrames.of(batch)
    places = frames.places((1, 8, 8))
    rows, columns = frames.grids((1, 8, 8))[2].tolist()
    inside = frames.is_patch[2]
    assert places[2][inside].tolist() == [[i, j] for i in range(rows) for j in range(columns)]


def test_training_draws_a_number_of_patches_for_each_batch_and_repeats_the_draw(folder):
    wanted = data(folder)
    source = open_source(wanted)

    def drawn(start):
        loader = TrainLoader(source, wanted, seed=0)
        try:
            stream = loader.stream(start)
            return [next(stream) for _ in range(8)]
        finally:
            loader.close()

    batches, later = drawn(0), drawn(3)
    rooms = [batch["is_patch"].shape[1] for batch in batches]
    assert set(rooms) == {16, 40}
    assert [batch["is_patch"].shape[1] for batch in later[:5]] == rooms[3:]
    for batch, room in zip(batches, rooms):
        assert (batch["is_patch"].sum(dim=1) <= room).all()
        assert torch.equal(batch["is_patch"].sum(dim=1), (batch["frame_size"] // 8).prod(dim=1))


def test_sizes_in_pixels_are_those_of_qwen2_vl(folder):
    native = PixelRange(patch=8, merged=2, image_pixels=(16 * 32, 64 * 64))
    wanted = data(folder, native)
    batch = next(iter(EvalLoader(open_source(wanted), wanted, "test", batch_size=6)))
    assert batch["frame_size"].tolist() == [[48, 48], [80, 32], [32, 128], [32, 32], [64, 48], [64, 48]]
    assert batch["is_patch"].shape == (6, 64)


def test_one_file_is_read_as_evaluation_reads_it(folder):
    views = read_views(folder / "2.png", data(folder).clip)
    assert tuple(views.video.shape[3:]) == fitting_size(40, 120, patch=8, max_patches=24)


def test_a_model_learns_from_frames_of_several_sizes(folder):
    run = systems.find("language.siglip2")
    decoder = run.objective.decoder
    assert decoder is not None
    wanted = data(folder)
    source = open_source(wanted)
    objective = replace(run.objective, decoder=replace(decoder, regions=False)).bind(source.info("train")).build()
    loader = TrainLoader(source, wanted, seed=0)
    try:
        batch = next(loader.stream(0))
    finally:
        loader.close()
    loss = objective(batch)
    loss.total.backward()
    assert loss.total.isfinite() and objective.encoder.pos_embed.grad.isfinite().all()
    with torch.no_grad():  # the vector of a clip does not depend on what it is padded to
        frames = NativeFrames.of(batch)
        together = objective.eval().encode_video(batch["video"], frames)
        for i, (height, width) in enumerate(frames.size.tolist()):
            alone = objective.encode_video(batch["video"][i : i + 1, ..., :height, :width])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_what_takes_no_frames_of_several_sizes_is_refused(folder):
    with pytest.raises(UserError, match="Clips come as square crops"):
        open_source(Data(path=folder, reads=Clips(), clip=Clip(native=NATIVE)))


@pytest.mark.parametrize("timestamps", [False, True])
def test_images_and_videos_of_one_conversation_keep_their_sizes(folder, tmp_path, timestamps):
    """Two images and a video of three sizes, one image, and no visual at all, in one batch."""
    write_video(tmp_path / "v.mp4", torch.full((6, 3, 48, 64), 200, dtype=torch.uint8), fps=6)
    records = [
        {"image": ["1.png", "2.png", "v.mp4"], "text": "<image> and <image> in <video>?"},
        {"image": ["0.png"], "text": "<image>?"},
        {"text": "what?"},
    ]
    turns = [[{"from": "human", "value": r.pop("text")}, {"from": "gpt", "value": "yes"}] for r in records]
    lines = [json.dumps({**r, "split": "test", "conversations": t}) for r, t in zip(records, turns)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    native = PixelRange(patch=8, merged=2, image_pixels=(16 * 32, 64 * 64), video_pixels=(16 * 16, 32 * 48))
    wanted = Data(
        path=tmp_path / "d.jsonl",
        reads=Conversations(visuals=3, timestamps=timestamps),
        clip=Clip(num_frames=4, sampling="uniform", size=32, native=native),
        train_split="test",
        num_workers=0,
    )
    source = open_source(wanted)
    batch = next(iter(EvalLoader(source, wanted, "test", batch_size=3)))
    assert list(source.kind.specification.faults(batch)) == []
    assert "is_patch" not in batch
    first, second, third = batch["frames"].tolist()
    sizes = batch["frame_size"].tolist()
    assert first == [1, 1, 4] and second == [1, 0, 0] and third == [4, 0, 0]
    assert sizes[0] == [[80, 32], [32, 128], list(native.size_of(4, 48, 64))]
    assert sizes[1] == [[48, 48], [0, 0], [0, 0]]
    assert batch["video"].shape[1:] == (6, 3, 80, 128)
    start = 0
    for path, count, (height, width) in zip(("1.png", "2.png", "v.mp4"), first, sizes[0]):
        alone = read_views(tmp_path / path, replace(wanted.clip, num_frames=count)).video[0]
        shown = batch["video"][0, start : start + count]
        assert torch.equal(shown[..., :height, :width], alone)
        assert (shown[..., height:, :] == 0).all() and (shown[..., width:] == 0).all(), "padding"
        start += count
