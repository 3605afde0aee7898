"""V-JEPA 2's training steps against the published code, in one process, alternating, at the same precision.

    git clone https://github.com/facebookresearch/vjepa2 FOLDER
    VJEPA2=FOLDER python bench/vjepa.py               # ViT-S and ViT-B on a clip of 16 x 224 x 224, and a narrow one
    VJEPA2=FOLDER python bench/vjepa.py --cases ViT-S --precisions float32 --rounds 3

A step is the teacher's pass over all positions, the student's and the predictor's over those of both types of masks,
a backward pass, AdamW's update and the teacher's. Both get the same masks; ours are drawn within the step, as they
are in training, and theirs beforehand. Memory and shares are measured as in ``bench/videomae.py``.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from filmstrip.nn.normalise import Normalise
from filmstrip.systems.pretraining import vjepa
from filmstrip.systems.pretraining.vjepa.model import VJEPAConfig
from peers import Case, Step, compare, training

LARGE = replace(vjepa.large().objective, num_frames=16, size=224)
NARROW = {"predictor_width": 96, "predictor_depth": 3, "predictor_num_heads": 3}
NETWORKS = {
    "narrow": replace(LARGE, width=192, depth=6, num_heads=3, num_frames=8, size=128, **NARROW),
    "ViT-S": replace(LARGE, width=384, depth=12, num_heads=6),
    "ViT-B": replace(LARGE, width=768, depth=12, num_heads=12),
}
MOMENTUM = 0.999


def video(config: VJEPAConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (1, config.num_frames, 3, config.size, config.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def ours(config: VJEPAConfig, precision: str) -> Step:
    objective, batch = config.build().train(), {"video": video(config), "seed": torch.arange(1)}
    step = training(objective.parameters(), lambda: objective(batch).total, precision)

    def with_teacher() -> None:
        step()
        objective.after_step(1)

    return with_teacher


def published(module: str) -> Any:
    """A module of the published code.

    Its only use of ``timm`` is stochastic depth, which is off here: without it a stand-in will do.
    """
    folder = os.environ.get("VJEPA2")
    if folder is None:
        sys.exit("give the folder of a clone of https://github.com/facebookresearch/vjepa2: VJEPA2=FOLDER")
    if folder not in sys.path:
        sys.path.append(folder)
    if "timm" not in sys.modules and importlib.util.find_spec("timm") is None:
        for name in ("timm", "timm.models", "timm.models.layers"):
            sys.modules[name] = ModuleType(name)
        sys.modules["timm.models.layers"].drop_path = None
    return importlib.import_module(module)


def theirs(config: VJEPAConfig, precision: str) -> Step:
    shape = {
        "img_size": config.size,
        "patch_size": config.patch_size[1],
        "num_frames": config.num_frames,
        "tubelet_size": config.patch_size[0],
        "use_rope": True,
    }
    encoder = published("src.models.vision_transformer").VisionTransformer(
        **shape, embed_dim=config.width, depth=config.depth, num_heads=config.num_heads
    )
    predictor = published("src.models.predictor").VisionTransformerPredictor(
        **shape,
        embed_dim=config.width,
        predictor_embed_dim=config.predictor_width,
        depth=config.predictor_depth,
        num_heads=config.predictor_num_heads,
        use_mask_tokens=True,
        num_mask_tokens=config.num_mask_tokens,
    )
    apply_masks = published("src.masks.utils").apply_masks
    teacher, normalise = copy.deepcopy(encoder).requires_grad_(False), Normalise()
    with torch.device("meta"):
        masked = config.build()
    drawn = masked.draw_masks(torch.arange(1))
    clip = video(config)

    def loss() -> torch.Tensor:
        pixels = normalise(clip).transpose(1, 2)
        with torch.no_grad():
            targets = teacher(pixels)
            targets = F.layer_norm(targets, targets.shape[-1:])
        errors = []
        for seen, hidden in drawn:
            predicted = predictor(encoder(pixels, masks=seen), seen, hidden, mask_index=0)
            (wanted,) = apply_masks(targets, [hidden], concat=False)
            errors.append((predicted - wanted).abs().mean())
        return sum(errors) / len(errors)

    step = training([*encoder.parameters(), *predictor.parameters()], loss, precision)

    def with_teacher() -> None:
        step()
        kept, learnt = list(teacher.parameters()), list(encoder.parameters())
        with torch.no_grad():
            torch._foreach_mul_(kept, MOMENTUM)
            torch._foreach_add_(kept, learnt, alpha=1 - MOMENTUM)

    return with_teacher


CASES = {name: Case(partial(ours, config), partial(theirs, config)) for name, config in NETWORKS.items()}

if __name__ == "__main__":
    compare(CASES, __file__, __doc__.splitlines()[0], peer="published")
