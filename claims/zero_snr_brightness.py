"""A process whose last time holds no signal makes clips as dark and bright as they were; the usual one does not."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from claims.training import Batch, learn
from filmstrip.inference import inference
from filmstrip.models.video_unet import VideoUNet, VideoUNetArchitecture
from filmstrip.objectives.diffusion import DiffusionConfig, Spacing
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, denoise
from filmstrip.protocols import Loss, Objective
from filmstrip.randomness import normal, uniform

STEPS, BATCH, RATE = 300, 16, 2e-3
FRAMES, SIZE, SAMPLES = 1, 32, 128
UNET = VideoUNetArchitecture(
    widths=(16, 32), depth=1, attention_levels=(), head_dim=16, context_width=16, groups=4, temporal=False
)
WAYS: dict[str, tuple[bool, Spacing]] = {
    "zero": (True, "trailing"),
    "plain": (False, "leading"),
    "plain trailing": (False, "trailing"),
}

CLAIM = Claim(
    systems=("editing.moca",),
    finding=__doc__.strip(),
    paper="Lin et al. 2024 (figures; MoCA follows them): with Stable Diffusion's schedule, sampled from the "
    "first of 50 leading times, images are of medium brightness; rescaled to no signal at the last time, sampled "
    "from it, dark and bright.",
    here="Clips of one frame of 32 x 32 pixels, one brightness each, drawn evenly from -1 (black) to 1, with a "
    f"soft texture. The U-Net of editing.moca over single frames, {STEPS} steps of {BATCH} clips, v-prediction "
    "with Stable Diffusion's schedule; 25 steps of DDIM from the same noise, 128 clips. The figure is the mean "
    "distance of a clip's brightness from the middle.",
    baseline="The schedule as it is, from leading times as Stable Diffusion samples, and from trailing ones: a "
    "second network of the same weights at first.",
    figures={
        "true": Figure(says="clips: distance of the brightness from the middle", digits=3),
        "zero": Figure(says="zero terminal ratio of signal to noise, trailing times", digits=3),
        "plain": Figure(says="schedule as it is, leading times", digits=3),
        "plain trailing": Figure(says="schedule as it is, trailing times", digits=3),
        "miss zero": Figure(says="zero: difference to the clips'", digits=3),
        "miss plain": Figure(says="plain, leading: difference to the clips'", digits=3),
    },
    expected=(
        above("zero", "plain", "clips are darker and brighter than by the usual schedule and times"),
        below("miss zero", "miss plain", "and nearer to what was learnt"),
        above("zero", "plain trailing", "the last time alone does not do it"),
    ),
    minutes=8,
)


class Brightness(Objective):
    """A U-Net of grey frames without text."""

    requires = ("video", "seed")

    def __init__(self, zero: bool) -> None:
        super().__init__()
        self.unet = VideoUNet(UNET, inputs=1, outputs=1)
        self.diffusion = DiffusionConfig(prediction="v", zero_terminal_snr=zero).build()

    def network(self, noisy: Tensor, time: Tensor) -> Tensor:
        """The prediction for noisy clips ``B T 1 H W``."""
        return self.unet(noisy, time, noisy.new_zeros(len(noisy), 1, UNET.context_width))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The mean squared error."""
        losses, _ = self.diffusion.losses(self.network, batch["video"], batch["seed"], "brightness")
        return Loss(losses.mean(), {})


def clips(seeds: Tensor) -> Tensor:
    """Clips ``B 1 1 H W`` of one brightness each, in -1..1 and a little beyond."""
    level = 2 * uniform(seeds, 1, "brightness.level").view(-1, 1, 1, 1) - 1
    coarse = normal(seeds, 16, "brightness.texture").view(-1, 1, 4, 4)
    texture = F.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    frames = level + 0.2 * (texture - texture.mean(dim=(2, 3), keepdim=True))
    return frames[:, None].expand(-1, FRAMES, -1, -1, -1).contiguous()


def measure(seed: int, folder: Path) -> dict[str, float]:
    models = {}
    for zero in (True, False):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)

        def draw(generator: torch.Generator = generator) -> Batch:
            seeds = torch.randint(2**40, (BATCH,), generator=generator)
            return {"video": clips(seeds), "seed": seeds}

        models[zero] = learn(Brightness(zero), draw, steps=STEPS, lr=RATE, clip_grad=1.0)
    shown = clips(torch.arange(SAMPLES) + SAMPLES * seed)
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(seed))
    found = {"true": _distance(shown)}
    for name, (zero, spacing) in WAYS.items():
        model = models[zero]
        with inference(model):
            made = denoise(model.diffusion, model.network, noise, DiffusionSampling(steps=25, spacing=spacing))
        found[name] = _distance(made)
    return found | {f"miss {name}": abs(found[name] - found["true"]) for name in ("zero", "plain")}


def _distance(videos: Tensor) -> float:
    return videos.flatten(1).mean(dim=1).abs().mean().item()
