"""Activation maximisation: clips optimised for one class's score of a classifier, with slow and with fast motion.

Gradient ascent from noise on the score minus two penalties (Feichtenhofer et al., "Deep Insights into Convolutional
Networks for Video Recognition", IJCV 2020): ``score - space * R_space - time * R_time``. With a large weight of
``R_time`` the clip shows the appearance and slow change that the network responds to, with a small one the fast
change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.commands.visualize import Ascent
from filmstrip.commands.work.generate import MOVING, tiled
from filmstrip.errors import UserError
from filmstrip.inference import device_of, modes_kept
from filmstrip.progress import counted
from filmstrip.protocols import Classifier, Objective
from filmstrip.runs.conditions import class_of
from filmstrip.runs.loading import load_classes, load_objective
from filmstrip.video import write_grid, write_video

MIN_SIZE = 224
"""Minimum size of displayed clips, in pixels; smaller ones are enlarged by an integer factor."""
_NOISE = 0.01
_COARSEST = 4  # pixels
_SMALL = 0.02  # differences of neighbouring pixels, of 0..1


@dataclass(frozen=True)
class ClipScore:
    """The network's class probability for a clip, and the clip's amount of change."""

    probability: float
    change: float
    """Mean absolute difference of neighbouring frames, with pixels in 0..1."""


def visualize(folder: Path, label: str, out: Path, ascent: Ascent, fps: float = 8.0) -> None:
    """Write the slow (left, or top) and the fast clip for one class: mp4, gif, webp, or a png of all frames.

    Raises:
        UserError: the run is not a classifier or does not have the class, or the file's format is unknown.
    """
    if out.suffix.lower() not in (*MOVING, ".png"):
        raise UserError(f"cannot write {out}: name it .mp4, .gif, .webp or .png")
    objective, run = load_objective(folder)
    if not isinstance(objective, Classifier):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which is not a classifier: visualize needs a run that "
            "was trained with labels"
        )
    classes = load_classes(folder)
    target, clip = class_of(label, classes), run.data.clip
    shape = (clip.num_frames, 3, clip.size, clip.size)
    with counted(f"optimising for {classes[target]}", ascent.steps) as done:
        try:
            video = climb(objective, target, shape, ascent, each_step=done)
        except RuntimeError as error:
            raise UserError(f"{folder} cannot be visualised: its score has no gradient ({error})") from error
    clips = _enlarged(video.cpu())
    if out.suffix.lower() == ".png":
        write_grid(out, list(clips))
    else:
        write_video(out, tiled(clips), fps)
    print(f"{out}: clips that {folder} classifies as {classes[target]}")
    for name, found in zip(("slow", "fast"), judge(objective, target, video)):
        print(f"{name}: probability {found.probability:.3f}, change between frames {found.change:.4f}")


def climb(
    objective: Objective,
    target: int,
    shape: Sequence[int],
    ascent: Ascent,
    each_step: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """The slow and the fast clip, ``2 T C H W`` in 0..1, optimised for a class's score.

    Both begin as the same grey noise and have the same shifts, and are otherwise independent. Their pixels' logits
    are sums over images of decreasing resolution, so that large shapes are optimised as easily as small ones.
    """
    assert isinstance(objective, Classifier), "visualize refuses other objectives"
    device, generator = device_of(objective), torch.Generator().manual_seed(ascent.seed)
    noise = _NOISE * torch.randn(1, *shape, generator=generator)
    time = torch.tensor([ascent.slow, ascent.fast], device=device)
    levels = [noise.repeat(2, 1, 1, 1, 1).to(device)]
    while min(levels[-1].shape[3:]) >= 2 * _COARSEST:
        levels.append(levels[-1].new_zeros(*levels[-1].shape[:3], *(side // 2 for side in levels[-1].shape[3:])))
    for level in levels:
        level.requires_grad_()
    optimiser = torch.optim.Adam(levels, lr=ascent.lr)
    with modes_kept(objective):
        objective.eval()
        for step in range(ascent.steps):
            clips = _drawn(levels)
            video = clips.detach().requires_grad_()
            shifts = torch.randint(-ascent.jitter, ascent.jitter + 1, (2,), generator=generator).tolist()
            score = log_odds(objective.classify(video.roll(shifts, dims=(3, 4))).float(), target)
            (uphill,) = torch.autograd.grad(score.sum(), video)
            penalty = ascent.space * roughness(video) + time * unsteadiness(video)
            (downhill,) = torch.autograd.grad(penalty.sum(), video)
            size = uphill.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt().clamp(min=1e-20)
            optimiser.zero_grad()
            clips.backward(downhill - uphill / size)
            optimiser.step()
            each_step(step + 1)
        return _drawn(levels).detach()


def log_odds(logits: Tensor, target: int) -> Tensor:
    """The log odds of a class, ``B``, from logits ``B K``; its gradient does not vanish where softmax saturates."""
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    return logits[:, target] - others.logsumexp(dim=1) if others.shape[1] else logits[:, target]


def roughness(video: Tensor) -> Tensor:
    """Total variation of each clip of ``B T C H W``: the sum of absolute differences along height and width.

    Smoothed at small differences, so that the gradient is continuous at zero.
    """
    rows, columns = (video.diff(dim=dim).flatten(1) for dim in (3, 4))
    return _smooth_sum(rows) + _smooth_sum(columns)


def _smooth_sum(differences: Tensor) -> Tensor:
    return (differences.square() + _SMALL**2).sqrt().sub(_SMALL).sum(dim=1)


def unsteadiness(video: Tensor) -> Tensor:
    """The sum of squared differences of neighbouring frames of each clip of ``B T C H W``."""
    return video.diff(dim=1).square().sum(dim=(1, 2, 3, 4))


@torch.no_grad()
def judge(objective: Objective, target: int, video: Tensor) -> list[ClipScore]:
    """The class probability and amount of change of each clip of ``B T C H W``."""
    assert isinstance(objective, Classifier), "visualize refuses other objectives"
    with modes_kept(objective):
        objective.eval()
        probabilities = objective.classify(video).float().softmax(dim=1)[:, target]
    changes = video.diff(dim=1).abs().sum(dim=(1, 2, 3, 4)) / max(1, video[0, 1:].numel())
    return [ClipScore(p, c) for p, c in zip(probabilities.tolist(), changes.tolist())]


def _drawn(levels: Sequence[Tensor]) -> Tensor:
    """Clips in 0..1 from the logits at all resolutions, finest first."""
    size = levels[0].shape[3:]
    larger = [
        F.interpolate(x.flatten(0, 1), size=size, mode="bilinear").unflatten(0, x.shape[:2]) for x in levels[1:]
    ]
    return sum(larger, levels[0]).sigmoid()


def _enlarged(video: Tensor) -> Tensor:
    factor = -(-MIN_SIZE // max(video.shape[3:]))
    return F.interpolate(video.flatten(0, 1), scale_factor=factor, mode="nearest").unflatten(0, video.shape[:2])
