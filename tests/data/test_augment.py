"""Every operation against a plain account of what it does to one clip; and that samples are independent."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats
from torch import Tensor

from filmstrip.data.augment.colour import GREY, change_colours_
from filmstrip.data.augment.mixing import beta, mix
from filmstrip.data.augment.pipeline import (
    apply_augment,
    check_augment,
    effective_augment,
    erase_,
    jitter_colours_,
    mirror,
)
from filmstrip.data.augment.rand_augment import (
    COLOUR_OPS,
    GEOMETRIC_OPS,
    OPS,
    colour_op_,
    geometric_op,
    rand_augment_,
    warp_,
)
from filmstrip.data.boxes import boxes
from filmstrip.data.config import Augment
from filmstrip.data.kinds.clips import Clips
from filmstrip.errors import UserError

OFF = Augment(mirror=0.0)
EVERYTHING = Augment(
    mirror=0.5, brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1, rand_ops=2, rand_magnitude=7.0, erase=0.7
)


def clips(count: int, frames: int = 3, size: int = 24, seed: int = 0) -> Tensor:
    """Smooth random clips, uint8, that use only part of the range."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count * frames, 3, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (fine * 200 + 20).to(torch.uint8).view(count, frames, 3, size, size)


def batch_of(count: int, **kwargs) -> dict:
    seeds = torch.arange(count) * 7919 + 11
    return {"video": clips(count, **kwargs), "seed": seeds, "label": torch.arange(count) % 5, "name": ["x"] * count}


def image(frame: Tensor) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def levels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def test_everything_off_returns_the_same_tensors():
    batch = batch_of(4)
    out = apply_augment(batch, OFF, num_classes=5)
    assert all(out[key] is batch[key] for key in batch)


def test_a_sample_is_augmented_alike_in_any_batch():
    batch = batch_of(8)
    together = apply_augment(batch, EVERYTHING, num_classes=5)["video"]
    for i in (0, 3, 7):
        one = {"video": batch["video"][i : i + 1], "seed": batch["seed"][i : i + 1]}
        alone = apply_augment(one, EVERYTHING, num_classes=5)["video"]
        assert torch.equal(alone[0], together[i])
    again = apply_augment(batch, EVERYTHING, num_classes=5)["video"]
    assert torch.equal(again, together)


def test_different_seeds_give_different_clips_and_inputs_are_not_changed():
    batch = batch_of(2)
    batch["video"][1] = batch["video"][0]
    before = batch["video"].clone()
    out = apply_augment(batch, dataclasses.replace(EVERYTHING, mixup=0.8, cutmix=1.0), num_classes=5)
    assert (out["video"][0].float() - out["video"][1].float()).abs().max() > 5
    assert torch.equal(batch["video"], before)


def test_video_keeps_its_type_and_floats_give_the_same():
    batch = batch_of(16)
    as_float = {**batch, "video": batch["video"].float() / 255}
    before = as_float["video"].clone()
    strong = dataclasses.replace(EVERYTHING, rand_ops=4, rand_magnitude=10.0, brightness=0.9, mixup=0.8, cutmix=1.0)
    levels = apply_augment(batch, strong, num_classes=5)["video"]
    video = apply_augment(as_float, strong, num_classes=5)["video"]
    assert levels.dtype == torch.uint8 and levels.shape == batch["video"].shape and levels.float().std() > 12
    assert video.dtype == torch.float32 and torch.equal(video, levels.float() / 255)
    assert torch.equal(as_float["video"], before)


def test_all_frames_of_a_clip_are_changed_alike():
    batch = batch_of(12, frames=1)
    batch["video"] = batch["video"].repeat(1, 4, 1, 1, 1)
    video = apply_augment(batch, EVERYTHING, num_classes=5)["video"]
    assert torch.equal(video[:, 1:], video[:, :1].expand(-1, 3, -1, -1, -1))


def test_mirror_flips_the_stated_share_and_keeps_uint8():
    video, seeds = clips(1, frames=1, size=8).expand(4000, -1, -1, -1, -1), torch.arange(4000)
    out = mirror(video, seeds, 0.3)
    assert out.dtype == torch.uint8
    flipped = (out == video.flip(-1)).flatten(1).all(1)
    assert ((out == video).flatten(1).all(1) ^ flipped).all()
    assert abs(flipped.float().mean() - 0.3) < 0.03
    assert torch.equal(mirror(video[:5], seeds[:5], 1.0), video[:5].flip(-1))


def test_directional_collections_are_not_mirrored():
    assert effective_augment(EVERYTHING, True) == dataclasses.replace(EVERYTHING, mirror=0.0)
    assert effective_augment(EVERYTHING, False) is EVERYTHING


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
def test_colour_factors_agree_with_pil(name, factor):
    enhancer = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast}
    video = clips(1, frames=1)
    expected = levels(enhancer.get(name, ImageEnhance.Color)(image(video[0, 0])).enhance(factor))
    change_colours_(video, **{name: torch.tensor([factor])})
    assert (video[0, 0] - expected).abs().max() <= 2.0


def test_hue_turns_colours_and_keeps_their_brightness():
    video = 90 + clips(2) // 10
    turned = video.clone()
    change_colours_(turned, hue=torch.tensor([1 / 3, 1.0]))
    grey = torch.tensor(GREY).view(3, 1, 1)
    assert ((turned * grey).sum(2) - (video * grey).sum(2)).abs().max() < 1
    assert torch.equal(turned[1], video[1])
    pixel = torch.tensor([150, 100, 80], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    shown = pixel.clone()
    change_colours_(shown, hue=torch.tensor([1 / 3]))
    moved = (
        colorsys.rgb_to_hsv(*shown.flatten().tolist())[0] - colorsys.rgb_to_hsv(*pixel.flatten().tolist())[0]
    ) % 1
    assert min(abs(moved - 1 / 3), abs(moved - 2 / 3)) < 0.08


def test_jitter_chains_the_changes_in_order():
    video, seeds = clips(3), torch.tensor([5, 6, 7])
    mild = {"brightness": 0.05, "contrast": 0.05, "saturation": 0.05, "hue": 0.02}
    at_once, step_by_step = video.clone(), video.clone()
    jitter_colours_(at_once, seeds, **mild)
    for name in mild:
        jitter_colours_(step_by_step, seeds, **{key: value if key == name else 0.0 for key, value in mild.items()})
    assert (at_once.float() - step_by_step.float()).abs().max() <= 2
    assert (at_once.float() - video.float()).abs().max() > 3


@pytest.mark.parametrize("name", COLOUR_OPS)
def test_rand_augment_colours_agree_with_pil(name):
    for clip, sign in zip(clips(2, frames=1), (1, -1)):
        picture = image(clip[0])
        expected = {
            "autocontrast": lambda p, s: ImageOps.autocontrast(p),
            "equalize": lambda p, s: ImageOps.equalize(p),
            "posterize": lambda p, s: ImageOps.posterize(p, 6),
            "solarize": lambda p, s: ImageOps.solarize(p, 128),
            "sharpness": lambda p, s: ImageEnhance.Sharpness(p).enhance(1 + 0.45 * s),
            "brightness": lambda p, s: ImageEnhance.Brightness(p).enhance(1 + 0.45 * s),
            "contrast": lambda p, s: ImageEnhance.Contrast(p).enhance(1 + 0.45 * s),
            "saturation": lambda p, s: ImageEnhance.Color(p).enhance(1 + 0.45 * s),
        }[name](picture, sign)
        colour_op_(name, clip, 0.5 * sign)
        assert (clip[0] - levels(expected)).abs().max() <= 2.0


def test_a_clip_of_one_colour_survives_every_operation():
    for name in COLOUR_OPS:
        clip = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
        colour_op_(name, clip, 0.9)
        assert len(clip.unique()) == 1, name
        if name in ("autocontrast", "equalize"):
            assert clip.unique().item() == 100, name


def test_sharpening_leaves_the_edge_as_pil_does():
    clip = clips(1, frames=1)[0]
    smooth = levels(image(clip[0]).filter(ImageFilter.SMOOTH))
    colour_op_("sharpness", clip, -1 / 0.9)
    assert (clip[0] - smooth).abs().max() <= 1.0


@pytest.mark.parametrize("name", GEOMETRIC_OPS)
@pytest.mark.parametrize("strength", [0.8, -0.8])
def test_rand_augment_geometry_agrees_with_pil(name, strength):
    size = 24
    video = clips(1, frames=2, size=size)[0]
    a = strength * {"rotate": torch.pi / 6, "translate_x": 0.45 * size, "translate_y": 0.45 * size}.get(name, 0.3)
    cos, sin = float(np.cos(a)), float(np.sin(a))
    linear, shift = {
        "shear_x": ([[1, a], [0, 1]], [0, 0]),
        "shear_y": ([[1, 0], [a, 1]], [0, 0]),
        "translate_x": ([[1, 0], [0, 1]], [a, 0]),
        "translate_y": ([[1, 0], [0, 1]], [0, a]),
        "rotate": ([[cos, -sin], [sin, cos]], [0, 0]),
    }[name]
    # PIL wants the map of pixel corners about the origin; ours is about the middle of the frame.
    offset = size / 2 - np.array(linear) @ [size / 2, size / 2] + shift
    data = (*linear[0], offset[0], *linear[1], offset[1])
    got = video.clone()
    warp_(got, geometric_op(name, strength))
    for t in range(2):
        for c in range(3):
            plane = Image.fromarray(video[t, c].float().numpy())
            wanted = plane.transform(
                (size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=-9
            )
            expected = torch.from_numpy(np.array(wanted))
            inside = expected >= 0
            inside &= torch.nn.functional.avg_pool2d(inside[None].float(), 3, 1, 1)[0] == 1
            assert inside.float().mean() > 0.2
            assert (got[t, c][inside] - expected[inside]).abs().max() < 1.5


def test_warps_compose_in_the_order_drawn():
    video = torch.nn.functional.pad(clips(1, size=12)[0], (18, 18, 18, 18), value=128)
    first, second = geometric_op("shear_x", 0.5), geometric_op("translate_y", 0.3)

    def warped(*affines: Tensor) -> Tensor:
        clip = video.clone()
        for affine in affines:
            warp_(clip, affine)
        return clip.float()

    assert (warped(first @ second) - warped(first, second)).abs().max() < 16
    assert (warped(second @ first) - warped(first, second)).abs().max() > 25


def test_rand_augment_draws_every_operation_about_equally():
    seeds = torch.arange(1400)
    video = clips(1, frames=1, size=20).repeat(1400, 1, 1, 1, 1)
    out = video.clone()
    rand_augment_(out, seeds, num_ops=1, magnitude=5.0)
    untouched = (out == video).flatten(1).all(1).float().mean()
    assert 0.7 / len(OPS) < untouched < 1.6 / len(OPS)
    assert len(torch.unique(out.flatten(1), dim=0)) >= 18  # 14 operations, of which 9 go either way


def test_erasing_paints_boxes_of_the_right_sizes():
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(256, (600, 1, 3, 40, 40), generator=generator, dtype=torch.uint8).repeat(1, 2, 1, 1, 1)
    out = video.clone()
    erase_(out, torch.arange(600), 0.25)
    areas = []
    for before, after in zip(video, out):
        rows, columns = (torch.nonzero((before != after).any(0).any(0).any(axis)).flatten() for axis in (1, 0))
        if len(rows):
            box = after[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert all(len(box[:, channel].unique()) == 1 for channel in range(3))
            areas.append(box[0, 0].numel() / 1600)
    assert abs(len(areas) / 600 - 0.25) < 0.05
    assert min(areas) > 0.01 and max(areas) < 0.36


def test_boxes_reach_both_edges():
    place, side = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 3.0])
    assert boxes(place, place, side, side * 2, 8, 10) == [(slice(0, 3), slice(0, 6)), (slice(5, 8), slice(4, 10))]
    assert boxes(place, place, side * 9, side * 9, 8, 10) == [(slice(0, 8), slice(0, 10))] * 2


@pytest.mark.parametrize("a", [0.2, 0.8, 1.0, 3.0])
def test_beta_follows_its_distribution(a):
    uniforms = (torch.arange(20000) + 0.5) / 20000
    drawn = beta(uniforms, a)
    expected = stats.beta.ppf(uniforms.double().numpy(), a, a)
    assert np.abs(drawn.numpy() - expected).max() < 2e-3


def test_mixup_blends_clips_and_labels_with_one_weight():
    batch = batch_of(4)
    video = batch["video"].float()
    out = mix(batch, mixup=0.8, cutmix=0.0, num_classes=5)
    labels = out["label"]
    assert labels.shape == (4, 5)
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    one_hot = torch.eye(5)[batch["label"]]
    for i in range(4):
        weight = labels[i, batch["label"][i]]
        expected = weight * video[i] + (1 - weight) * video[3 - i]
        assert (out["video"][i] - expected).abs().max() < 0.51
        torch.testing.assert_close(labels[i], weight * one_hot[i] + (1 - weight) * one_hot[3 - i])
    assert len(torch.unique(out["label"].amax(1))) > 1


def test_cutmix_pastes_a_box_and_weighs_labels_by_its_area():
    batch = batch_of(4)
    video = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1, 1).expand(4, 2, 3, 20, 20)
    out = mix({**batch, "video": video}, mixup=0.0, cutmix=1.0, num_classes=5)
    for i in range(4):
        own = out["video"][i] == video[i]
        assert (out["video"][i][~own] == 3 - i).all()
        torch.testing.assert_close(out["label"][i, i], own[0, 0].float().mean())


def test_with_both_a_batch_uses_one_or_the_other():
    kinds = set()
    for start in range(0, 80, 4):
        batch = batch_of(4, size=16)
        video = 60 * torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1, 1).expand(4, 1, 3, 16, 16)
        out = mix(
            {**batch, "video": video, "seed": torch.arange(start, start + 4)}, mixup=0.8, cutmix=1.0, num_classes=5
        )
        flat = (out["video"].amax((1, 2, 3, 4)) == out["video"].amin((1, 2, 3, 4))).all()
        kinds.add("mixup" if flat else "cutmix")
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize("missing", ["label", "classes"])
def test_mixing_without_labels_is_refused(missing):
    batch = batch_of(2)
    if missing == "label":
        del batch["label"]
    with pytest.raises(UserError, match=r"mixup and cutmix to 0"):
        apply_augment(batch, Augment(mixup=0.8), num_classes=None if missing == "classes" else 5)


@pytest.mark.gpu
def test_on_a_gpu_it_gives_the_same_and_waits_for_nothing():
    batch = batch_of(16)
    everything = dataclasses.replace(EVERYTHING, mixup=0.8, cutmix=1.0)
    expected = apply_augment(batch, everything, num_classes=5)["video"]
    moved = {**batch, "video": batch["video"].cuda(), "label": batch["label"].cuda()}
    apply_augment(moved, everything, num_classes=5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        video = apply_augment(moved, everything, num_classes=5)["video"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (video.cpu().float() - expected.float()).abs()
    assert difference.mean() < 0.05 and (difference > 2).float().mean() < 1e-3


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_clips_with_actions_that_matter_are_not_mixed(kind):
    with pytest.raises(UserError, match="learns from actions: set data"):
        check_augment(Augment(**{kind: 0.8}), ("seed", "action"), Clips.specification)
    check_augment(Augment(**{kind: 0.8}), ("video", "label"), Clips.specification)
    check_augment(Augment(erase=0.5), ("seed", "action"), Clips.specification)
