import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.annotations.davis import open_davis
from filmstrip.data.config import Clip, Data
from filmstrip.data.masks import Mask, default_palette, read_mask, write_mask
from filmstrip.errors import UserError
from filmstrip.evals.label_propagation import LabelPropagation
from filmstrip.evals.propagation import FrameEncoder, Propagation, hard_mask, propagate, soft_masks, track
from filmstrip.evals.segmentation import boundary_accuracy, statistics
from filmstrip.protocols import Features, Grid, as_float
from filmstrip.runs import experiment
from filmstrip.runs.encoders import EncoderAlone
from filmstrip.runs.evaluation import Subject
from filmstrip.systems.pretraining import toto, vjepa
from filmstrip.train.lengths import Steps

DAVIS = Path(__file__).parents[3] / "shared/data/vos/DAVIS"


class Pixels(nn.Module):
    """An encoder of patches of colours and their squares; of clips only, if they have a fixed length."""

    width = 6

    def __init__(self, patch=4, length=None, tubelet=1):
        super().__init__()
        self.patch_size, self.length = (tubelet, patch, patch), length

    def forward(self, video, layers=False):
        if self.length not in (None, video.shape[1]):
            raise ValueError(f"clips have {self.length} frames, got {video.shape[1]}")
        t, p, _ = self.patch_size
        x = as_float(video) - 0.5
        tokens = rearrange(x, "b (t s) c (h p) (w q) -> b (t h w) c (s p q)", s=t, p=p, q=p).mean(dim=-1)
        grid = Grid(video.shape[1] // t, video.shape[3] // p, video.shape[4] // p)
        return Features(tokens, grid, (tokens, rearrange(x[..., ::2, ::2], "b t c h w -> b (t h w) c")))


def texture(height, width, seed=0):
    """A picture whose places all look different, ``3 H W`` uint8."""
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def features_of(frames, settings, encoder=None):
    found = FrameEncoder(encoder or Pixels(), 32, 1, tuple(frames.shape[-2:]), settings)
    return found, (features for _, features in found(frames.split(3)))


def brute_force(features, known, masks, settings):
    """Label propagation token by token, over all tokens of all frames."""
    count, channels, height, width = masks.shape
    result = torch.zeros(channels, height, width)
    for y in range(height):
        for x in range(width):
            near = []
            for m in range(count):
                for v in range(height):
                    for u in range(width):
                        if max(abs(v - y), abs(u - x)) <= settings.radius:
                            similarity = float(features[y * width + x] @ known[m, v * width + u])
                            near.append((similarity, masks[m, :, v, u]))
            near.sort(key=lambda pair: -pair[0])
            weights = [np.exp(similarity / settings.temperature) for similarity, _ in near[: settings.top_k]]
            for weight, (_, label) in zip(weights, near):
                result[:, y, x] += weight / sum(weights) * label
    return result


@pytest.mark.parametrize(
    ("grid", "radius", "top_k"), [((5, 7), 2, 5), ((11, 9), 3, 4), ((3, 4), 12, 50), ((9, 9), 0, 2)]
)
def test_propagation_equals_brute_force(grid, radius, top_k):
    generator = torch.Generator().manual_seed(1)
    count = grid[0] * grid[1]
    features = nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=-1)
    known = nn.functional.normalize(torch.randn(3, count, 6, generator=generator), dim=-1)
    masks = torch.rand(3, 2, *grid, generator=generator)
    settings = Propagation(radius=radius, top_k=top_k)
    expected = brute_force(features, known, masks, settings)
    assert propagate(features, known, masks, settings) == pytest.approx(expected, abs=1e-5)


def test_tokens_that_are_alike_all_count():
    features = nn.functional.normalize(torch.ones(16, 3), dim=-1)
    masks = torch.rand(1, 2, 4, 4)
    found = propagate(features, features[None], masks, Propagation(top_k=1))
    assert found == pytest.approx(masks.mean(dim=(2, 3), keepdim=True).expand(1, 2, 4, 4)[0], abs=1e-6)


def test_a_still_film_keeps_its_mask():
    frames = texture(8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)[None].expand(12, -1, -1, -1)
    numbers = torch.zeros(32, 32, dtype=torch.uint8)
    numbers[8:20, 12:28] = 1
    numbers[24:, :8] = 3
    encoder, features = features_of(frames, settings := Propagation(top_k=1))
    soft = soft_masks(numbers, (1, 3), encoder.grid)
    for found in track(features, soft, settings):
        assert found == pytest.approx(soft, abs=1e-5)
        shown = hard_mask(found, (1, 3), (32, 32))
        assert ((shown == 1) & (numbers == 1)).sum() / ((shown == 1) | (numbers == 1)).sum() > 0.8
    exact = [
        hard_mask(found, (1, 3), encoder.grid) for found in track(features_of(frames, settings)[1], soft, settings)
    ]
    assert len(exact) == 12
    assert all((mask == numbers[2::4, 2::4]).all() for mask in exact)  # J is 1 on the grid


def test_a_picture_that_moves_is_followed_and_far_look_alikes_are_not():
    picture = texture(16, 32).repeat_interleave(4, 1).repeat_interleave(4, 2)
    frames = torch.stack([picture.roll((4 * t, 4 * t), (1, 2)) for t in range(9)])
    frames[:, :, :, 80:112] = frames[:, :, :, 16:48]  # the object's double, outside the radius
    numbers = torch.zeros(64, 128, dtype=torch.uint8)
    numbers[20:32, 24:40] = 1
    settings = Propagation(size=64, keep_aspect=True, radius=2, top_k=1, last_frames=1)
    encoder, features = features_of(frames, settings)
    assert encoder.size == (64, 128) and encoder.grid == (16, 32)
    masks = list(track(features, soft_masks(numbers, (1,), encoder.grid), settings))
    for t in (1, 3, 7):
        expected = numbers.roll((4 * t, 4 * t), (0, 1)) == 1
        found = hard_mask(masks[t], (1,), encoder.grid).repeat_interleave(4, 0).repeat_interleave(4, 1) == 1
        assert torch.equal(found, expected)


@pytest.mark.parametrize("count", [3, 8, 11])
def test_clips_cover_every_frame_once_in_order(count):
    frames = texture(count * 32, 32).view(3, count, 32, 32).transpose(0, 1)
    alone = list(FrameEncoder(Pixels(), 32, 4, (32, 32), Propagation())(frames.split(2)))
    clips = list(FrameEncoder(Pixels(length=4), 32, 4, (32, 32), Propagation())(frames.split(3)))
    asked = FrameEncoder(Pixels(), 32, 4, (32, 32), Propagation(context="clip"))
    assert asked.num_frames == 4
    for found in (clips, list(asked(frames.split(5)))):
        assert len(found) == count
        for (frame, features), (same_frame, same) in zip(found, alone):
            assert torch.equal(frame, same_frame) and torch.allclose(features, same)


def test_an_encoder_of_tubelets_sees_single_frames_repeated():
    frames = texture(5 * 32, 32).view(3, 5, 32, 32).transpose(0, 1)
    encoder = FrameEncoder(Pixels(tubelet=2), 32, 16, (32, 32), Propagation())
    assert encoder.num_frames == 1
    for (_, features), (_, same) in zip(
        encoder([frames]), FrameEncoder(Pixels(), 32, 16, (32, 32), Propagation())([frames])
    ):
        assert torch.allclose(features, same, atol=1e-6)


def test_layers_have_grids_of_their_own():
    encoder = FrameEncoder(Pixels(), 32, 1, (48, 64), Propagation(layer=1, size=24, keep_aspect=True))
    assert encoder.size == (24, 32) and encoder.grid == (12, 16)
    assert FrameEncoder(Pixels(), 32, 1, (48, 64), Propagation(layer=-2)).grid == (8, 8)
    with pytest.raises(UserError, match="2 layers: layer 2 is not one"):
        FrameEncoder(Pixels(), 32, 1, (48, 64), Propagation(layer=2))
    with pytest.raises(UserError, match=r"does not take frames of 30 x 30 pixels .* another size"):
        FrameEncoder(Pixels(), 32, 1, (48, 64), Propagation(size=30))
    with pytest.raises(UserError, match="one token of a frame"):
        FrameEncoder(Pixels(patch=32), 32, 1, (48, 64), Propagation())


def test_small_objects_keep_their_share_of_a_token():
    numbers = torch.zeros(64, 64, dtype=torch.uint8)
    numbers[3:5, 3:5] = 7
    soft = soft_masks(numbers, (7,), (4, 4))
    assert soft[1, 0, 0] == pytest.approx(4 / 256) and soft.sum(dim=0) == pytest.approx(torch.ones(4, 4))
    assert (hard_mask(soft, (7,), (64, 64)) == 7).any()
    gone = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    assert not hard_mask(gone, (7,), (8, 8)).any()


def write_film(root, name, frames, masks, palette=None):
    """A film in the layout of DAVIS; ``masks`` by frame."""
    images, annotations = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
    for folder in (images, annotations):
        folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(images / f"{t:05d}.png")
    for t, numbers in masks.items():
        write_mask(Mask(numbers.numpy(), palette or default_palette()), annotations / f"{t:05d}.png")


def still_film(root, name="still", count=5):
    frame = texture(32, 32)
    numbers = torch.zeros(32, 32, dtype=torch.uint8)
    numbers[8:20, 12:28] = 1
    write_film(root, name, [frame] * count, dict.fromkeys(range(count), numbers))
    return numbers


def subject_of(encoder, protocol, root):
    data = Data(path=root, clip=Clip(num_frames=4, size=32))
    source = protocol.own_source(data)
    return Subject(objective=EncoderAlone(encoder), source=source, data=data, device=torch.device("cpu"))


def test_the_protocol_on_films(tmp_path):
    still_film(tmp_path / "davis")
    still_film(tmp_path / "davis", "other", count=3)
    protocol = LabelPropagation(top_k=1, out=tmp_path / "out")
    subject = subject_of(Pixels(patch=1), protocol, tmp_path / "davis")
    protocol.check(subject)
    found = dict(protocol(subject))
    assert found["objects"] == 2 and found["J"] == found["F"] == found["F_recall"] == 1 and found["J_decay"] == 0
    assert found["J&F"] == pytest.approx((found["J&F/still"] + found["J&F/other"]) / 2)
    written = [read_mask(path) for path in sorted((tmp_path / "out/still").iterdir())]
    assert len(written) == 5 and written[3].objects == (1,)
    assert (written[0].numbers == read_mask(tmp_path / "davis/Annotations/480p/still/00000.png").numbers).all()


def test_what_does_not_fit_is_refused_before_any_work(tmp_path):
    still_film(tmp_path / "davis")
    mask = tmp_path / "davis/Annotations/480p/still/00002.png"
    good = read_mask(mask)
    write_mask(Mask(good.numbers[:16], good.palette), mask)
    protocol = LabelPropagation()
    with pytest.raises(UserError, match="mask of 16 x 32 pixels, and the frames of still have 32 x 32"):
        protocol.check(subject_of(Pixels(), protocol, tmp_path / "davis"))
    write_mask(good, mask)
    first = mask.with_name("00000.png")
    write_mask(Mask(np.zeros_like(good.numbers), good.palette), first)
    with pytest.raises(UserError, match="has no object"):
        protocol.check(subject_of(Pixels(), protocol, tmp_path / "davis"))
    first.unlink()
    with pytest.raises(UserError, match="no mask of the first frame"):
        open_davis(tmp_path / "davis")
    with pytest.raises(UserError, match="not laid out as DAVIS"):
        open_davis(tmp_path)


def test_films_without_further_masks_are_only_written(tmp_path):
    still_film(tmp_path / "davis")
    for path in sorted((tmp_path / "davis/Annotations/480p/still").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="masks to compare with, beside the first: give --out"):
        LabelPropagation().check(subject_of(Pixels(), LabelPropagation(), tmp_path / "davis"))
    protocol = LabelPropagation(out=tmp_path / "out")
    subject = subject_of(Pixels(), protocol, tmp_path / "davis")
    protocol.check(subject)
    assert dict(protocol(subject)) == {"objects": 0.0}
    assert len(list((tmp_path / "out/still").iterdir())) == 5


def test_lists_of_every_year_are_read(tmp_path):
    for name in ("a", "b", "c"):
        still_film(tmp_path, name)
    assert open_davis(tmp_path).splits == ("val",) and len(open_davis(tmp_path).samples) == 3
    lists = tmp_path / "ImageSets"
    (lists / "480p").mkdir(parents=True)
    (lists / "480p/train.txt").write_text("/JPEGImages/480p/a/00000.jpg /Annotations/480p/a/00000.png\n" * 2)
    assert [film.name for film in open_davis(tmp_path).split("train")] == ["a"]
    for year, names in (("2016", "a"), ("2017", "b\nc")):
        (lists / year).mkdir()
        (lists / year / "val.txt").write_text(f"{names}\n\n")
    assert [film.name for film in open_davis(tmp_path).split("val")] == ["b", "c"]
    data = Data(path=tmp_path)
    assert LabelPropagation().splits_of(data) == ("val",) and LabelPropagation(split="x").splits_of(data) == ("x",)


@pytest.mark.parametrize("preset", [toto.tiny, vjepa.tiny])
def test_runs_are_evaluated_by_the_command(tmp_path, preset, capsys):
    still_film(tmp_path / "davis", count=4)
    run = preset()
    run = replace(run, train=replace(run.train, length=Steps(1)), evals=())
    experiment.train(run, tmp_path / "run")
    arguments = ["eval", str(tmp_path / "run"), "--protocol", "label_propagation", "--data", str(tmp_path / "davis")]
    for options in ([], ["--layer", "0", "--context", "clip"]):
        assert main([*arguments, *options]) == 0
        said = dict(re.findall(r"^(\S+) +(-?[\d.]+)$", capsys.readouterr().out, re.MULTILINE))
        assert float(said["J&F"]) > 0.1 and said["objects"] == "1.0000"
    assert main([*arguments, "--layer", "99"]) == 2
    assert "layer 99 is not one of them" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path)]) == 2
    assert "not laid out as DAVIS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "frames", "grid"),
    [
        ("pretraining.hiera", 8, (4, 4)),  # clips of one length and size
        ("recognition.timesformer", 8, (8, 8)),
        ("recognition.r2plus1d", 1, (4, 4)),  # any length, layers with grids of their own
        ("recognition.video_swin", 1, (8, 8)),  # tubelets, clips of any length
        ("pretraining.toto", 1, (8, 8)),
    ],
)
def test_encoders_of_every_kind_have_features_of_every_frame(name, frames, grid):
    run = systems.find(f"{name}:tiny")
    torch.manual_seed(0)
    found, clip = run.objective.build().eval(), run.data.clip
    film = torch.randint(0, 256, (5, 3, 48, 80)).byte()
    for layer in (None, 0, -1):
        encoder = FrameEncoder(found.encoder, clip.size, clip.num_frames, (48, 80), Propagation(layer=layer))
        assert encoder.num_frames == frames and (layer is not None or encoder.grid == grid)
        features = [each for _, each in encoder([film])]
        assert len(features) == 5
        assert features[0].shape[0] == encoder.grid[0] * encoder.grid[1]
        assert features[0].norm(dim=-1) == pytest.approx(torch.ones(len(features[0])), abs=1e-4)
    with pytest.raises(UserError, match=r"one token of a frame"):
        one = systems.find("recognition.vtn:tiny")
        FrameEncoder(one.objective.build().eval().encoder, one.data.clip.size, 8, (48, 80), Propagation())


def test_encoders_of_the_hub_are_evaluated_by_the_command(tmp_path, capsys):
    still_film(tmp_path / "davis", count=4)
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(tmp_path / "theirs")
    arguments = ["eval", str(tmp_path / "theirs"), "--protocol", "label_propagation"]
    data = ["--data", str(tmp_path / "davis")]
    assert main([*arguments, *data, "--size", "56", "--keep-aspect", "--layer", "1"]) == 0
    assert "J&F " in capsys.readouterr().out
    assert main([*arguments, *data, "--size", "57"]) == 2
    assert "does not take frames of 57 x 57 pixels" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "has no data of its own: give --data PATH" in capsys.readouterr().err


@pytest.mark.skipif(not DAVIS.is_dir(), reason="the sequences of DAVIS are not at ../shared/data/vos")
def test_real_films_are_read_and_their_own_masks_score_one():
    source = open_davis(DAVIS)
    assert [film.name for film in source.split("val")] == ["blackswan", "car-shadow", "libby", "motocross-jump"]
    for film in source.split("val"):
        assert film.frame_size() == film.mask(0).numbers.shape == (480, 854)
        assert film.mask(0).objects == (255,) and all(film.masks)
    chunk = next(film.chunks(3))
    assert chunk.shape == (3, 3, 480, 854) and chunk.dtype == torch.uint8
    mask = torch.from_numpy(film.mask(5).numbers) == 255
    assert boundary_accuracy(mask, mask) == 1.0 and 0.0 < boundary_accuracy(mask, mask.roll(10, 1)) < 1.0


def test_the_decay_of_long_films_counts_frames_beyond_256():
    values = torch.cat([torch.ones(300), torch.zeros(300)])
    assert statistics(values).decay == pytest.approx(1.0)
