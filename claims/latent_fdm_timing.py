"""Latent FDM takes 19 times as long as TECO to sample a frame of a long video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from claims.teco_sampling import build, by_teco, seconds, size
from filmstrip.models.video_unet import UNetArchitecture
from filmstrip.objectives.diffusion_sampling import denoise
from filmstrip.systems.generation import latent_fdm
from filmstrip.systems.generation.latent_fdm.model import LatentFDM
from filmstrip.systems.generation.latent_fdm.schedules import stages
from filmstrip.systems.tokenizers import vae_kl

FRAMES, GIVEN, WINDOW = 300, 144, 20
PUBLISHED, FEW, TIMED = 1000, 100, 2
"""Steps of sampling: those of the published code, fewer ones, and those that are timed."""
NETWORK = UNetArchitecture(
    widths=(80, 160, 160, 160), depths=(1, 1, 2, 2), attention_levels=(2, 3), head_dim=40, groups=16
)
"""Minecraft's levels, narrower: about as many parameters as TECO has here."""
CODER = replace(vae_kl.tiny().objective, widths=(16, 24, 32), halvings=2)
"""Of 64 x 64 pixels it makes 16 x 16 latents, as the thesis' does; encoding and rendering are not timed."""

CLAIM = Claim(
    systems=("generation.latent_fdm", "generation.teco"),
    finding=__doc__.strip(),
    paper="Yan et al. 2023, B.5, Minecraft, 300 frames: 3,606 ms a frame against 186 of TECO, 19 times, with 33 M "
    "parameters against 274 M; the steps of sampling are not told.",
    here="TECO as in teco_sampling, and a U-Net of Minecraft's levels with as many parameters, fresh weights, one "
    "clip of 300 frames of 16 x 16. TECO's time is that for a frame early, midway and late. Latent FDM makes 156 "
    "frames after 144 that are given, all at once: two steps are timed, and taken times the published thousand, or a "
    "hundred; so are those of a network that sees 20 frames and makes 10 of them. Encoding and rendering are left "
    "out on both sides. Times are of processor time, and only their ratios are compared.",
    baseline="TECO, by passes of its prior as in its publication.",
    figures={
        "TECO": Figure(says="TECO: ms a frame, mean", paper="186", digits=0),
        "FDM": Figure(says="latent FDM, 1000 steps: ms a frame", paper="3606", digits=0),
        "FDM, few": Figure(says="latent FDM, 100 steps: ms a frame", digits=0),
        "FDM, window": Figure(says="latent FDM, 20 frames at once, 1000 steps: ms a frame", digits=0),
        "times": Figure(says="times slower, 1000 steps", paper="19"),
        "times, few": Figure(says="times slower, 100 steps"),
        "even": Figure(says="steps that latent FDM could take in TECO's time"),
        "TECO, M": Figure(says="TECO: M parameters", paper="274"),
        "FDM, M": Figure(says="latent FDM: M parameters", paper="33"),
    },
    expected=(
        above("times", 19.0, "by the published steps latent FDM is at least 19 times slower"),
        above("times, few", 1.0, "and still slower by a tenth of them"),
        above("FDM", "FDM, window", "seeing all frames at once costs more for each than seeing a few"),
    ),
    minutes=1.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    theirs = build()[0].to(device)
    whole, window = (fresh(most).to(device) for most in (FRAMES, WINDOW))
    found = {"TECO, M": size(theirs) / 1e6, "FDM, M": size(whole) / 1e6}
    with torch.inference_mode():
        by_teco(theirs, 2, device)  # warm
        times = [by_teco(theirs, frame, device) for frame in (2, FRAMES // 2, FRAMES)]
        found["TECO"] = 1000 * sum(times) / len(times)
        step = by_fdm(whole, FRAMES - GIVEN, device)
        short = by_fdm(window, WINDOW // 2, device)
    found |= {"FDM": 1000 * PUBLISHED * step, "FDM, few": 1000 * FEW * step, "FDM, window": 1000 * PUBLISHED * short}
    found |= {"times": found["FDM"] / found["TECO"], "times, few": found["FDM, few"] / found["TECO"]}
    return found | {"even": found["TECO"] / (1000 * step)}


def fresh(most: int) -> LatentFDM:
    """A network that sees so many frames of a long clip at once, with actions: time does not depend on weights."""
    config = latent_fdm.minecraft().objective
    return replace(config, tokenizer=CODER, size=64, max_frames=most, unet=NETWORK).build().eval()


def by_fdm(model: LatentFDM, made: int, device: torch.device) -> float:
    """Seconds of one step of sampling for each frame of the last stage, which makes so many at once."""
    given = range(FRAMES - made)
    (stage,) = stages("autoregressive", FRAMES, given, max_frames=model.max_frames, at_once=made)
    frames = sorted(stage.observed + stage.latent)
    observed = torch.tensor([frame in stage.observed for frame in frames], device=device)
    latents = model.noise(torch.zeros(1, dtype=torch.int64, device=device), len(frames), (16, 16))
    action = torch.zeros(1, FRAMES, dtype=torch.int64, device=device)
    predict = model.predictor(latents, frames, observed, model.conditions(1, FRAMES, label=None, action=action))
    predict(latents, torch.zeros(1, device=device))  # warm
    sampling = latent_fdm.FDMSampling(steps=TIMED)
    return seconds(lambda: denoise(model.diffusion, predict, latents, sampling), device) / TIMED / made
