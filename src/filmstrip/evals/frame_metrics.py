"""Similarity of two videos, frame by frame: PSNR, SSIM and LPIPS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.objectives.perceptual import load_perceptual
from filmstrip.protocols import as_float

EQUAL_PSNR = 100.0
"""PSNR assigned to equal frames, decibels, so that means stay finite."""
_SSIM_WINDOW = 11


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of frames ``... C H W`` in 0..1, ``...`` decibels, maximum :data:`EQUAL_PSNR`."""
    error = (a.double() - b.double()).square().mean(dim=(-3, -2, -1))
    return -10 * error.clamp_min(10 ** (-EQUAL_PSNR / 10)).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of frames ``N C H W`` in 0..1 (Wang et al. 2004): ``N`` in float64, 1 for equal frames.

    The mean over RGB channels and over pixels whose Gaussian window (11 x 11, standard deviation 1.5) lies within the
    frame.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    border = _SSIM_WINDOW // 2
    # Variances are differences of squares that nearly cancel in flat frames: float32 yields 0.9998 instead of 1.
    a, b = a.double(), b.double()
    # torchmetrics' own mean includes the reflection-padded border: the definition does not.
    _, similarity = structural_similarity_index_measure(
        a, b, sigma=1.5, kernel_size=_SSIM_WINDOW, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


def check_frames(files: Sequence[Path], size: int) -> None:
    """Check that LPIPS's weights (``files``, if any) exist, and that frames of ``size`` pixels are large enough.

    Raises:
        UserError: they do not exist, or are too small.
    """
    if absent := [str(path) for path in files if not path.is_file()]:
        raise UserError(f"LPIPS needs {', '.join(absent)}, which does not exist: provide its published weights")
    if size < _SSIM_WINDOW:
        raise UserError(f"frames of {size} x {size} pixels are too small to compare: SSIM needs {_SSIM_WINDOW}")


class FrameMetrics:
    """PSNR, SSIM and a perceptual distance of videos, named by ``names``.

    The perceptual distance is LPIPS with its published weights (``files``), named ``lpips_vgg`` or ``lpips_alex``, or
    else a stand-in with random features, named ``random_features``.
    """

    def __init__(self, files: tuple[Path, ...] = (), *, device: torch.device, frames_at_once: int = 64) -> None:
        self._perceptual = load_perceptual(files).to(device).eval()
        self._at_once = frames_at_once
        self.higher_is_better = {"psnr": True, "ssim": True, self._perceptual.name: False}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.higher_is_better)

    @torch.no_grad()
    def __call__(self, video: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Each metric of ``B T C H W`` videos, uint8 or 0..1: ``B T``, float64 on the CPU.

        Raises:
            ValueError: the videos differ in shape.
            UserError: frames are smaller than SSIM's window, or LPIPS's weights do not exist.
        """
        if video.shape != truth.shape:
            raise ValueError(f"videos of {tuple(video.shape)} and {tuple(truth.shape)} cannot be compared")
        if min(video.shape[-2:]) < max(_SSIM_WINDOW, self._perceptual.smallest):
            raise UserError(
                f"frames of {video.shape[-2]} x {video.shape[-1]} pixels are too small to compare: "
                f"SSIM needs {_SSIM_WINDOW}, {self._perceptual.name} {self._perceptual.smallest}"
            )
        pairs = zip(*(rearrange(v, "b t c h w -> (b t) c h w").split(self._at_once) for v in (video, truth)))
        parts = [self._frames(as_float(a), as_float(b)) for a, b in pairs]
        shape = video.shape[:2]
        return {name: torch.cat([part[name] for part in parts]).unflatten(0, shape) for name in self.names}

    def _frames(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        values = (psnr(a, b), ssim(a, b), self._perceptual(a, b))
        return {name: value.double().cpu() for name, value in zip(self.names, values)}
