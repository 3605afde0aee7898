"""The demo's second part: a tokenizer, a prior over its codes, and samples of both.

It has its own dataset of plain moving shapes: textures would take more than minutes of training.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from filmstrip.commands.work.encode import encode_files
from filmstrip.data.augment.levels import to_levels
from filmstrip.data.config import Augment, Clip, Data, Synthetic
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.frame_metrics import psnr
from filmstrip.evals.likelihood import Likelihood
from filmstrip.inference import inference
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Condition, as_float
from filmstrip.report import Facts, Section, Strip, Strips
from filmstrip.report.comparison import training_curves, videos_named
from filmstrip.report.run import duration
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.contents import training_seconds
from filmstrip.systems.generation.videogpt import VideoGPT, VideoGPTConfig
from filmstrip.systems.tokenizers.vqvae3d import VQVAE3D, VQVAE3DConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW

TOKENIZER, PRIOR = "VQ-VAE", "VideoGPT"
FOLDERS = {TOKENIZER: "tokenizer", PRIOR: "prior"}
TOKENS = "tokens"
SHAPES = Motions(
    train_per_class=120, test_per_class=10, num_frames=16, size=32, difficulty=0.0, num_shapes=2, plain=True
)
"""Training data of tokenizer and prior: simple enough for minutes on a laptop."""
CLIP = Clip(num_frames=8, stride=1, size=32, short_side=(32, 32))
CLIPS = 2
"""Number of clips of each video whose tokens the prior is trained on."""
SAMPLES = 4
"""Number of samples of each class."""
SAMPLING = Sampling(temperature=0.9, top_k=8)
"""Truncated sampling: less probable codes appear as specks and shapes of several colours."""
FPS = 8.0


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The trained tokenizer and prior, and their samples."""

    tokenizer: experiment.Result
    prior: experiment.Result
    samples: Tensor
    """``(classes samples) T C H W`` uint8, class by class."""
    seconds: float
    """Duration of sampling."""


def plan_runs(out: Path, data: Synthetic) -> dict[str, Run]:
    """The tokenizer's run on a dataset's videos, and the prior's run on the tokens that are encoded in between."""
    network = VQVAE3DConfig(
        width=64,
        residual_width=64,
        depth=1,
        num_heads=0,
        patch_size=(4, 4, 4),
        num_frames=CLIP.num_frames,
        size=CLIP.size,
        codebook=Codebook(size=256, dim=32),
        data_variance=0.026,
    )
    prior = VideoGPTConfig(
        tokenizer=network,
        tokenizer_run=str(out / FOLDERS[TOKENIZER]),
        num_frames=CLIP.num_frames,
        size=CLIP.size,
        width=128,
        depth=4,
        num_heads=4,
        attention="full",
        dropout=0.0,
        conditions=("label",),
    )
    videos = Data(synthetic=data, clip=CLIP, augment=Augment(mirror=0.0), batch_size=16, clips_per_video=2)
    return {
        TOKENIZER: Run(
            data=videos, objective=network, optim=AdamW(lr=3e-3, weight_decay=0.0), train=Loop(length=Steps(700))
        ),
        PRIOR: Run(
            data=replace(videos, synthetic=None, path=out / TOKENS, batch_size=16, clips_per_video=1, num_workers=0),
            objective=prior,
            optim=AdamW(lr=2e-3, weight_decay=0.01, betas=(0.9, 0.95)),
            train=Loop(length=Steps(500)),
            evals=(Likelihood(),),
        ),
    }


def train_and_sample(out: Path, data: Synthetic, console: Console, *, first: int, last: int) -> Generated:
    """Train both and sample every class; ``first`` and ``last`` number the runs in the output."""
    runs = plan_runs(out, data)
    console.rule(f"{first} of {last}: {TOKENIZER}, a tokenizer", align="left")
    tokenizer = experiment.train(runs[TOKENIZER], out / FOLDERS[TOKENIZER])
    console.rule(f"{last} of {last}: {PRIOR}, a prior over its tokens", align="left")
    encode_files(
        out / FOLDERS[TOKENIZER], [tokenizer.source.root], out / TOKENS, level="ids", num_clips=CLIPS, batch_size=40
    )
    prior = experiment.train(runs[PRIOR], out / FOLDERS[PRIOR])
    classes = len(prior.source.classes)
    label = torch.arange(classes, device=prior.subject.device).repeat_interleave(SAMPLES)
    start = time.monotonic()
    condition = Condition(batch_size=len(label), num_frames=CLIP.num_frames, label=label)
    generator = _prior(prior)
    with inference(generator):
        samples = to_levels(generator.sample(condition, seed=0, sampling=SAMPLING)).cpu()
    return Generated(tokenizer=tokenizer, prior=prior, samples=samples, seconds=time.monotonic() - start)


def sections(made: Generated) -> list[Section]:
    """The report's sections: key figures, curves, reconstructions beside originals, and samples of every class."""
    curves = training_curves(
        {TOKENIZER: made.tokenizer.folder},
        {"nmse": "Tokenizer: squared error over the variance"},
        "Training",
    )
    codes = training_curves(
        {PRIOR: made.prior.folder}, {"bits_per_dim": "Prior: bits per code given the previous codes"}
    )
    curves = replace(curves, sections=(*curves.sections, *codes.sections))
    return [_facts(made), curves, _reconstructions(made), _samples(made)]


def _tokenizer(result: experiment.Result) -> VQVAE3D:
    assert isinstance(result.objective, VQVAE3D), "as plan_runs configures it"
    return result.objective


def _prior(result: experiment.Result) -> VideoGPT:
    assert isinstance(result.objective, VideoGPT), "as plan_runs configures it"
    return result.objective


def _facts(made: Generated) -> Facts:
    grid = _prior(made.prior).grid
    bits = next(value for name, value in made.prior.metrics.items() if name.startswith("bits_per_dim/"))
    codebook = _tokenizer(made.tokenizer).codebook_size
    assert codebook is not None, "a VQ-VAE has a codebook"
    speed = made.samples.shape[0] * made.samples.shape[1] / made.seconds
    facts = [
        ("codes per clip", f"{grid.t} × {grid.h} × {grid.w}"),
        ("PSNR of reconstructed test videos", f"{_psnr(made.tokenizer):.1f} dB"),
        (f"bits per code, test videos (of {math.log2(codebook):.0f})", f"{bits:.2f}"),
        ("training, tokenizer", duration(training_seconds(made.tokenizer.folder))),
        ("training, prior", duration(training_seconds(made.prior.folder))),
        ("frames sampled per second", f"{speed:.0f}"),
    ]
    return Facts("Tokenizer and prior", facts)


def _psnr(tokenizer: experiment.Result) -> float:
    """Mean PSNR over all frames of one clip of each test video."""
    subject, values = tokenizer.subject, []
    for batch in EvalLoader(subject.source, subject.data, subject.data.eval_split, batch_size=16):
        rebuilt = _rebuilt(tokenizer, batch["video"])
        values.append(psnr(as_float(rebuilt), as_float(batch["video"])).flatten())
    return float(torch.cat(values).mean())


def _rebuilt(tokenizer: experiment.Result, video: Tensor) -> Tensor:
    """Video ``B T C H W`` reconstructed from its codes, uint8."""
    objective, device = _tokenizer(tokenizer), tokenizer.subject.device
    with inference(objective):
        tokens = objective.encode(video.to(device))
        return to_levels(objective.decode(tokens)).cpu()


def _reconstructions(made: Generated) -> Strips:
    """The first test video of each class beside its reconstruction."""
    subject = made.tokenizer.subject
    split = subject.source.split(subject.data.eval_split)
    first = {sample.label: sample.name for sample in reversed(split) if sample.label is not None}
    videos = videos_named(subject.source, subject.data, set(first.values()))
    names = [first[label] for label in sorted(first)]
    video = torch.stack([videos[name] for name in names])
    strips = [Strip(pair, name) for *pair, name in zip(video, _rebuilt(made.tokenizer, video), names)]
    grid = _prior(made.prior).grid
    note = (
        f"Test videos, not used in training, at {CLIP.size} × {CLIP.size} pixels: a clip of {CLIP.num_frames} "
        f"frames is encoded as {grid.t * grid.h * grid.w} codes, and reconstructed from them."
    )
    return Strips("Reconstructions of the tokenizer", strips, ("original", "from its codes"), fps=FPS, note=note)


def _samples(made: Generated) -> Strips:
    """Samples of each class."""
    classes = made.prior.source.classes
    strips = [Strip(list(clips), name) for clips, name in zip(made.samples.split(SAMPLES), classes, strict=True)]
    note = (
        f"The first {SAMPLES} samples of each class, not selected. A small network trained for minutes: expect "
        "moving shapes with soft outlines, some of two colours, and some that do not move as their class does."
    )
    return Strips(f"Samples of {PRIOR}, by class", strips, fps=FPS, note=note)
