"""Arming an image network for video changes nothing at first, and then lets it see motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below, equal
from claims.training import Batch, answers, learn, percent
from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2Config

FRAMES, SIZE, STEPS = 8, 32, 200
WAYS = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
"""Of motion, along x and y."""
IMAGE = UniFormerV2Config(
    width=64,
    depth=3,
    num_heads=2,
    patch_size=8,
    size=SIZE,
    global_layers=(),
    reduction=None,
    halve_time=False,
    drop_path=0.0,
    global_drop_path=0.0,
    dropout=0.0,
    num_classes=4,
)
ARMS = {
    "frames averaged": IMAGE,
    "global": replace(IMAGE, global_layers=(1, 2)),
    "local": replace(IMAGE, reduction=1.5),
    "local and global": replace(IMAGE, global_layers=(1, 2), reduction=1.5),
}

CLAIM = Claim(
    systems=("recognition.uniformer_v2",),
    finding=__doc__.strip(),
    paper="Li et al. 2023 put local relations over time into an image ViT's blocks, and a video token beside them "
    "that looks at all frames; what is added starts at zero. The published configurations leave local relations out "
    "on Kinetics, where scenes give actions away, and have them on Something-Something, where motion does.",
    here="An image ViT learns in 200 steps in which quarter of the frame a texture is brightest; it is then armed "
    "in each way, and all of it learns in 200 steps which of four ways the texture moves. A clip backwards moves "
    "the opposite way, so that no average over frames can tell more than the axis (50). 640 unseen clips, chance 25.",
    baseline="The image network, its frames averaged.",
    figures={
        "image": Figure(says="the image network: top-1 of quarters, %"),
        **{
            f"{name}, change": Figure(says=f"{name}: change of a frame's class token by arming", digits=7)
            for name in ARMS
        },
        **{name: Figure(says=f"{name}: top-1 of motion, %") for name in ARMS},
    },
    expected=(
        above("local", "frames averaged", "local relations see motion, by 25 points", by=25.0),
        above("global", "frames averaged", "so does the video token alone, by 25 points", by=25.0),
        above("local and global", "frames averaged", "and both together, by 25 points", by=25.0),
        *(equal(f"{name}, change", 0.0, f"arming ({name}) changes nothing at first", within=0.0) for name in ARMS),
        below("frames averaged", 60.0, "an average over frames tells the axis at most"),
    ),
    analysis="Local relations find motion. The video token alone does not within 200 steps, in three seeds on one "
    "thread; whether it does depends on the order in which sums are taken, too: it has named 25.9 and 74.5 of the "
    "same clips on one thread and on two.",
    minutes=10,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    image = trained(IMAGE.build(), 1, generator)
    found = {"image": accuracy(image, 1)}
    for name, config in ARMS.items():
        torch.manual_seed(seed)
        armed = config.build()
        armed.encoder.load_state_dict(image.encoder.state_dict(), strict=False)
        found[f"{name}, change"] = apart(image, armed)
        trained(armed, FRAMES, torch.Generator().manual_seed(seed))
        found[name] = accuracy(armed, FRAMES)
    return found


def trained(network: Classification, frames: int, generator: torch.Generator) -> Classification:
    """The network after training on clips that are never the same."""
    return learn(network, drawn(16, frames, generator), steps=STEPS, lr=1e-3, warmup=0.2, clip_grad=1.0)


def drawn(count: int, frames: int, generator: torch.Generator) -> Callable[[], Batch]:
    """Draws such clips."""
    return lambda: dict(zip(("video", "label"), make(count, frames, generator)))


def make(count: int, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A texture, ``B T 3 H W`` in 0..1, and the class: of one frame, in which quarter it is brightest; else the way
    it moves."""
    way = torch.randint(4, (count,), generator=generator)
    start, speed = torch.rand(2, count, 2, generator=generator)
    shift = start[:, None] + WAYS[way][:, None] * (0.03 + 0.03 * speed[:, None]) * torch.arange(frames)[:, None]
    ticks = (torch.arange(SIZE) + 0.5) / SIZE
    x, y = (torch.cos(2 * torch.pi * (ticks - part[..., None])) for part in shift.unbind(2))
    texture = 0.5 + 0.2 * (y[..., :, None] + x[..., None, :])[:, :, None]
    video = texture + 0.1 * torch.randn(count, frames, 3, SIZE, SIZE, generator=generator)
    place = (2 * (start % 1.0)).long()
    return video.clamp(0, 1), way if frames > 1 else 2 * place[:, 0] + place[:, 1]


def accuracy(network: Classification, frames: int) -> float:
    """The percentage of 640 new clips that are named rightly."""
    video, label = make(640, frames, torch.Generator().manual_seed(1000))
    return percent(answers(network, video), label)


@torch.no_grad()
def apart(image: Classification, armed: Classification) -> float:
    """The largest difference of what both say of a clip's frames."""
    seen: list[Tensor] = []
    hooks = [
        network.encoder.blocks[-1].register_forward_hook(lambda block, given, out: seen.append(out[:, 0]))
        for network in (image, armed)
    ]
    video, _ = make(8, FRAMES, torch.Generator().manual_seed(1))
    for network in (image, armed):
        network.eval()
        network.classify(video)
    for hook in hooks:
        hook.remove()
    return (seen[0] - seen[1]).abs().max().item()
