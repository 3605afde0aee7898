"""A discriminator and a perceptual error make reconstructions sharp where absolute error alone leaves them blurred.

    python claims/vqgan_sharpness.py

Three tokenizers of frames of mazes, with one network and as many steps: VQ-GAN; the same with absolute error alone;
and ``vae_kl``, VQ-GAN with continuous latents in place of codes. On unseen frames: sharpness, the mean gradient
(Sobel) of the reconstruction over the original's, where 1 is as sharp; the Frechet distance between originals and
reconstructions, and the mean distance of pairs, in random features that none was trained with; and PSNR, which blur
is good for. Esser et al. 2021 (VQ-GAN) add the two losses so that pictures stay lifelike at a high compression.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from elastictok_busy import sobel_energy
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.reading.loader import eval_batches
from filmstrip.data.synthetic.mazes import Mazes
from filmstrip.evals.frame_metrics import psnr
from filmstrip.evals.frechet import Moments, frechet_distance
from filmstrip.inference import inference
from filmstrip.models.perceptual import Perceptual
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.systems.tokenizers.vae_kl import VAEKLConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig
from filmstrip.train.config import Loop, Optim

SIZE, SEED = 32, 99
BOOK = Codebook(size=256, dim=16)
TOKENIZERS: dict[str, ObjectiveConfig] = {
    "VQ-GAN": VQGANConfig.small(codebook=BOOK),
    "absolute error alone": replace(VQGANConfig.small(codebook=BOOK), perceptual_weight=0.0, adversarial_weight=0.0),
    "vae_kl": VAEKLConfig.small(),
}


def run_of(objective: ObjectiveConfig, args: argparse.Namespace) -> Run:
    """A tokenizer on single frames of mazes."""
    return Run(
        data=Data(
            synthetic=Mazes(num_train=args.videos, num_test=40, num_frames=64, rooms=3, size=SIZE),
            clip=Clip(num_frames=2, stride=8, size=SIZE, short_side=(SIZE, SIZE)),
            clips_per_video=4,
            reads=Clips(actions=False),
            batch_size=16,
        ),
        objective=objective,
        optim=Optim(lr=2e-3, weight_decay=0.0, betas=(0.5, 0.9)),
        train=Loop(steps=args.steps, clip_grad=None, log_every=100),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--videos", type=int, default=300, help="walks to learn from")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    network, rows = other_network(), {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, objective in TOKENIZERS.items():
            result = experiment.train(run_of(objective, args), (args.out or Path(temporary)) / name.replace(" ", "-"))
            data = result.run.data
            batches = eval_batches(result.source, data, data.eval_split, num_clips=4)
            video = torch.cat([as_float(batch["video"]) for batch in batches])
            with inference(result.objective):
                rebuilt = result.objective.decode(result.objective.encode(video))
                ours, theirs = (rearrange(v, "b t c h w -> (b t) c h w") for v in (rebuilt, video))
                rows[name] = (
                    (sobel_energy(rebuilt).mean() / sobel_energy(video).mean()).item(),
                    1000 * frechet_distance(moments(network, ours), moments(network, theirs)),
                    1000 * network(ours, theirs).mean().item(),
                    psnr(ours, theirs).mean().item(),
                )
    print("\n| | sharpness | Frechet distance, thousandths | random features' distance, thousandths | PSNR |")
    print("|---|---:|---:|---:|---:|")
    for name, (sharp, frechet, distance, decibels) in rows.items():
        print(f"| {name} | {sharp:.3f} | {frechet:.3f} | {distance:.3f} | {decibels:.2f} |")
    full, plain, continuous = rows.values()
    print(f"\nsharper with discriminator and perceptual error: {full[0] > plain[0]} (paper: True)")
    print(f"nearer to the originals in features not trained with: {full[1] < plain[1]} (paper: True, in FID)")
    print(f"continuous latents lose less than codes on the same grid: {continuous[3] > full[3]}")


if __name__ == "__main__":
    main()
