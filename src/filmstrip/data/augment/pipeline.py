"""Augmentation of batches on the device, each sample's drawn from its own seed.

All frames of a clip are changed alike. Apart from mixing, what happens to a sample does not depend on the batch it
is in. What to do is drawn on the host, and done clip by clip on 8-bit levels (see ``levels.py``): no step waits for a
device whose batches keep their seeds on the host.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import torch
from torch import Tensor

from filmstrip.data.augment.colour import change_colours_
from filmstrip.data.augment.levels import to_levels
from filmstrip.data.augment.mixing import mix
from filmstrip.data.augment.rand_augment import rand_augment_
from filmstrip.data.boxes import boxes
from filmstrip.data.config import Augment
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.specification import Specification
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.randomness import uniform

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 10 / 3)
"""Ranges of an erased box's share of the frame, and of its width over height (Zhong et al. 2020)."""


def effective_augment(augment: Augment, directional: bool) -> Augment:
    """The augmentation for a collection: without mirroring where classes are directional."""
    return dataclasses.replace(augment, mirror=0.0) if directional else augment


def check_augment(augment: Augment, requires: Collection[str], specification: Specification) -> None:
    """Check that an objective that reads the batch keys ``requires`` can learn from augmented batches.

    Raises:
        UserError: clips are mixed, and the objective learns from properties that are undefined for a mixture, such as
            actions or boxes.
    """
    for name, key in specification.keys.items():
        if name in requires and key.unmixed and (augment.mixup or augment.cutmix):
            own = key.unmixed
            raise UserError(
                f"mixup and cutmix blend clips that each have their own {own}, and this model learns from {own}: "
                "set data.augment.mixup and cutmix to 0"
            )


def apply_augment(
    batch: Batch, augment: Augment, *, num_classes: int | None, specification: Specification = Clips.specification
) -> Batch:
    """Augment a batch: ``video`` is ``B T C H W`` uint8, or floating point in 0..1.

    What its kind of sample says is mirrored with the video is. In this order: mirror, RandAugment, colour jitter,
    erasing, mixing. Video keeps its type, but all except mirroring rounds floating-point video to 8-bit levels. The
    batch given is not changed; with everything off, the same tensors come back. So do features and tokens, which
    nothing here can change.

    Raises:
        UserError: labels should be mixed, and there are none.
    """
    if "video" not in batch:
        return batch
    given, seeds = batch["video"], batch["seed"].cpu()
    jitter = {key: getattr(augment, key) for key in ("brightness", "contrast", "saturation", "hue")}
    in_place = augment.rand_ops or any(jitter.values()) or augment.erase
    mixing = augment.mixup or augment.cutmix
    video = mirror(given, seeds, augment.mirror) if augment.mirror else given
    if augment.mirror:
        batch = {**batch, **_mirrored_with(batch, seeds, augment.mirror, specification)}
    if in_place or mixing:
        video = to_levels(video)
    if in_place and video is given:
        video = video.clone()
    if augment.rand_ops:
        rand_augment_(video, seeds, num_ops=augment.rand_ops, magnitude=augment.rand_magnitude)
    if any(jitter.values()):
        jitter_colours_(video, seeds, **jitter)
    if augment.erase:
        erase_(video, seeds, augment.erase)
    batch = {**batch, "video": video}
    if mixing:
        batch |= mix(batch, mixup=augment.mixup, cutmix=augment.cutmix, num_classes=num_classes)
    if batch["video"].dtype != given.dtype:
        batch["video"] = batch["video"].to(given.dtype) / 255
    return batch


def mirror(video: Tensor, seeds: Tensor, probability: float) -> Tensor:
    """Swap left and right of each clip with a probability; any dtype."""
    mirrored = torch.empty_like(video)
    for clip, out, swap in zip(video, mirrored, _mirrored(seeds, probability).tolist()):
        out.copy_(clip.flip(-1) if swap else clip)
    return mirrored


def _mirrored_with(batch: Batch, seeds: Tensor, probability: float, specification: Specification) -> Batch:
    """The keys that change with the clips that :func:`mirror` swaps, such as boxes."""
    swapped = {}
    for name, key in specification.keys.items():
        if key.mirrored is not None and name in batch:
            value = batch[name]
            chosen = _mirrored(seeds, probability).to(value.device).view(-1, *[1] * (value.ndim - 1))
            swapped[name] = torch.where(chosen, key.mirrored(value), value)
    return swapped


def _mirrored(seeds: Tensor, probability: float) -> Tensor:
    """Which clips are mirrored, ``B``."""
    return uniform(seeds, 1, "augment.mirror")[:, 0] < probability


def jitter_colours_(video: Tensor, seeds: Tensor, **largest: float) -> None:
    """Change brightness, contrast, saturation by factors in ``1 ± largest``, and hue by up to ``± largest`` turns."""
    draw = uniform(seeds, len(largest), "augment.jitter") * 2 - 1
    changes = {
        name: draw[:, i] * most if name == "hue" else (1 + draw[:, i] * most).clamp(min=0)
        for i, (name, most) in enumerate(largest.items())
        if most
    }
    change_colours_(video, **changes)


def erase_(video: Tensor, seeds: Tensor, probability: float) -> None:
    """Paint a box of a random place, shape and colour over all frames of each uint8 clip, with a probability."""
    height, width = video.shape[-2:]
    draw = uniform(seeds, 8, "augment.erase")
    area = (ERASED_AREA[0] + draw[:, 1] * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
    low, high = (math.log(bound) for bound in ERASED_ASPECT)
    aspect = (low + draw[:, 2] * (high - low)).exp()
    places = boxes(draw[:, 3], draw[:, 4], (area / aspect).sqrt(), (area * aspect).sqrt(), height, width)
    colours = (draw[:, 5:8] * 255).round().int().tolist()
    for clip, chance, (rows, columns), colour in zip(video, draw[:, 0].tolist(), places, colours):
        if chance < probability:
            for channel, level in enumerate(colour):
                clip[:, channel, rows, columns] = level
