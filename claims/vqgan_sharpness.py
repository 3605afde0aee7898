"""A discriminator and a perceptual error make reconstructions sharp where absolute error alone leaves blur."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from claims.elastictok_busy import sobel_energy
from claims.ledger import Claim, Figure, above, below
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.mazes import Mazes
from filmstrip.evals.frame_metrics import psnr
from filmstrip.evals.frechet import Moments, frechet_distance
from filmstrip.inference import inference
from filmstrip.models.perceptual import Perceptual
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers.vae_kl import VAEKLConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW

STEPS, VIDEOS = 100, 300
SIZE, SEED = 32, 99
BOOK = Codebook(size=256, dim=16)
TOKENIZERS: dict[str, ObjectiveConfig] = {
    "VQ-GAN": VQGANConfig.small(codebook=BOOK),
    "plain": replace(VQGANConfig.small(codebook=BOOK), perceptual_weight=0.0, adversarial_weight=0.0),
    "vae_kl": VAEKLConfig.small(),
}
SAYS = {"VQ-GAN": "VQ-GAN", "plain": "absolute error alone", "vae_kl": "vae_kl"}

CLAIM = Claim(
    systems=("tokenizers.vqgan", "tokenizers.vae_kl"),
    finding=__doc__.strip(),
    paper="Esser et al. 2021 add the two losses so that pictures stay lifelike at a high compression; no figure of "
    "these is given.",
    here="Three tokenizers of frames of mazes, with one network and 100 steps each: VQ-GAN; the same with absolute "
    "error alone; and vae_kl, VQ-GAN with continuous latents in place of codes. On unseen frames: sharpness, the "
    "mean gradient (Sobel) of the reconstruction over the original's; the Frechet distance between originals and "
    "reconstructions, and the mean distance of pairs, in random features that none was trained with; and PSNR, "
    "which blur is good for.",
    baseline="Absolute error alone.",
    figures={
        key: figure
        for name, says in SAYS.items()
        for key, figure in (
            (f"{name}, sharpness", Figure(says=f"{says}: sharpness (1 is as sharp)", digits=3)),
            (f"{name}, Frechet", Figure(says=f"{says}: Frechet distance, thousandths", digits=3)),
            (f"{name}, distance", Figure(says=f"{says}: distance of pairs, thousandths", digits=3)),
            (f"{name}, PSNR", Figure(says=f"{says}: PSNR, dB", digits=2)),
        )
    },
    expected=(
        above("VQ-GAN, sharpness", "plain, sharpness", "sharper with discriminator and perceptual error"),
        below("VQ-GAN, Frechet", "plain, Frechet", "nearer to the originals in features that none was trained with"),
        above("vae_kl, PSNR", "VQ-GAN, PSNR", "continuous latents lose less than codes on the same grid"),
    ),
    analysis="Sharpness grows in every seed. Distances in features that none was trained with are smaller in all "
    "three, and what codes lose is more in two of three, but by too different amounts for so few seeds.",
    minutes=6,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    network, found = other_network(), {}
    for name, objective in TOKENIZERS.items():
        result = experiment.train(run_of(objective, seed), folder / name)
        data = result.run.data
        batches = EvalLoader(result.source, data, data.eval_split, num_clips=4)
        video = torch.cat([as_float(batch["video"]) for batch in batches])
        with inference(result.objective):
            rebuilt = result.objective.decode(result.objective.encode(video))
            ours, theirs = (rearrange(v, "b t c h w -> (b t) c h w") for v in (rebuilt, video))
            found[f"{name}, sharpness"] = (sobel_energy(rebuilt).mean() / sobel_energy(video).mean()).item()
            found[f"{name}, Frechet"] = 1000 * frechet_distance(moments(network, ours), moments(network, theirs))
            found[f"{name}, distance"] = 1000 * network(ours, theirs).mean().item()
            found[f"{name}, PSNR"] = psnr(ours, theirs).mean().item()
    return found


def run_of(objective: ObjectiveConfig, seed: int) -> Run:
    """A tokenizer on single frames of mazes."""
    return Run(
        data=Data(
            synthetic=Mazes(num_train=VIDEOS, num_test=40, num_frames=16, rooms=3, size=SIZE),
            clip=Clip(num_frames=2, stride=8, size=SIZE, short_side=(SIZE, SIZE)),
            clips_per_video=4,
            reads=Clips(actions=False),
            batch_size=16,
        ),
        objective=objective,
        optim=AdamW(lr=2e-3, weight_decay=0.0, betas=(0.5, 0.9)),
        train=Loop(length=Steps(STEPS), clip_grad=None, log_every=100),
        seed=seed,
    )


def other_network() -> Perceptual:
    """Random features, others than those that a perceptual error was trained with."""
    network, generator = Perceptual.stand_in(), torch.Generator().manual_seed(SEED)
    for parameter in network.stages.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter, generator=generator)
    return network


def moments(network: Perceptual, frames: Tensor) -> Moments:
    """Of the features of ``N 3 H W`` frames at the third depth, averaged over each frame."""
    found = network.features(frames)[2].mean(dim=(2, 3))
    kept = Moments(found.shape[1])
    kept.update(found)
    return kept
