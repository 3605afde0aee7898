"""TECO keeps revisited places of a maze as they were, where a model of short context does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sample import Sample
from filmstrip.data.synthetic.mazes import Mazes
from filmstrip.evals.frame_metrics import FrameMetrics
from filmstrip.inference import inference
from filmstrip.protocols import Condition, Generator, as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.generation import teco
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW

STEPS, VIDEOS, WALKS = 60, 150, 2
FRAMES, CONTEXT, ROOMS, SIZE = 96, 64, 2, 16
TESTS = 16
WINDOW = 8
LEARNT = 2  # of WINDOW frames, in each step

CLAIM = Claim(
    systems=("generation.teco",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023, DMLab, 156 frames after 144 (table 3.1, figure 3.5): PSNR 21.9 and LPIPS 0.157; "
    "Perceiver AR, whose context is short, 11.2 and 0.487.",
    here="Walks of 96 frames through mazes, 16 x 16 pixels, whose every other way leads back to a place seen long "
    "ago. Two TECOs of one size learn from pixels and actions for 60 steps: one on whole walks, one on clips of 8 "
    "frames, which it continues in a sliding window; in each step both see as many frames, and prior and decoder "
    "learn from as many. Both are given 64 frames of 16 unseen walks and all actions, and are compared with what was "
    "really seen: in all frames, and in those that show again what was given more than a window before (within half "
    "a cell and 30 degrees).",
    baseline="The TECO of short context; repeating the last frame.",
    figures={
        "whole": Figure(says="whole walks: PSNR, dB", paper="21.9 (DMLab)", digits=2),
        "short": Figure(says="short context: PSNR, dB", paper="11.2 (DMLab, Perceiver AR)", digits=2),
        "still": Figure(says="the last frame given: PSNR, dB", digits=2),
        "whole, revisited": Figure(says="whole walks, revisited frames: PSNR, dB", digits=2),
        "short, revisited": Figure(says="short context, revisited frames: PSNR, dB", digits=2),
        "still, revisited": Figure(says="the last frame given, revisited frames: PSNR, dB", digits=2),
        "frames": Figure(says="revisited frames", digits=0),
    },
    expected=(
        above(
            "whole, revisited", "short, revisited", "whole walks keep revisited places better than a short context"
        ),
        above("whole, revisited", "still, revisited", "and better than the last frame again"),
    ),
    analysis="Within tens of steps both learn to move what they see, and neither to look back: the paper trains for "
    "a million steps. More steps that a claim could afford do not change that. An earlier form of this claim saw no "
    "difference after 400 steps either, nor in mazes where one turns on the spot and everything was seen a turn ago "
    "([the log](log.md)); nor was there anything to see where a frame was a single plain colour of six that come "
    "around again and again: after 1,000 steps of 24 clips whole walks still guessed the next colour (2.09 nats, "
    "where chance is 2.08).",
    minutes=2,
    seeds=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    metrics, curves = FrameMetrics(device=torch.device("cpu")), {}
    for name, length, make in (("whole", FRAMES, whole), ("short", WINDOW, sliding)):
        run = run_of(length, seed)
        result = experiment.train(run, folder / name)
        data = replace(run.data, clip=replace(run.data.clip, num_frames=FRAMES))
        batch = next(iter(EvalLoader(result.source, data, data.eval_split, batch_size=TESTS)))
        video, action = batch["video"], batch["action"]
        with inference(result.objective):
            made = make(result.objective, video, action, CONTEXT)
        curves[name] = metrics(made[:, CONTEXT:], video[:, CONTEXT:])["psnr"]
    last = video[:, CONTEXT - 1 : CONTEXT].expand_as(video[:, CONTEXT:])
    curves["still"] = metrics(last, video[:, CONTEXT:])["psnr"]
    again = revisited([result.source.split(data.eval_split)[i] for i in batch["index"]], CONTEXT)
    found = {name: curve.mean().item() for name, curve in curves.items()}
    found |= {f"{name}, revisited": curve[again].mean().item() for name, curve in curves.items()}
    return found | {"frames": again.sum().item()}


def run_of(num_frames: int, seed: int) -> Run:
    """TECO on clips of so many frames; batches have the same number of frames, of as many walks."""
    mazes = Mazes(
        num_train=VIDEOS,
        num_test=TESTS,
        num_frames=FRAMES,
        rooms=ROOMS,
        size=SIZE,
    )
    return Run(
        data=Data(
            synthetic=mazes,
            clip=Clip(num_frames=num_frames, stride=1, size=SIZE, short_side=(SIZE, SIZE)),
            augment=Augment(mirror=0.0),
            clips_per_video=FRAMES // num_frames,
            batch_size=WALKS * FRAMES // num_frames,
        ),
        objective=teco.TECOConfig(
            num_frames=num_frames,
            size=SIZE,
            encoder_widths=(12, 24, 48),
            encoder_blocks=1,
            decoder_widths=(16, 32, 64),
            decoder_blocks=1,
            codebook_size=256,
            code_dim=16,
            latent_dim=48,
            stride=4,
            width=192,
            depth=4,
            num_heads=6,
            prior_width=96,
            prior_depth=3,
            prior_num_heads=4,
            prior_code_width=64,
            drop_loss=1 - LEARNT * num_frames / WINDOW / (num_frames - 1),
            conditions=("action",),
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.0),
        train=Loop(length=Steps(STEPS), log_every=50),
        seed=seed,
    )


def whole(model: Generator, video: Tensor, action: Tensor, context: int) -> Tensor:
    """The walk, continued with all of its context in sight."""
    given = Condition(batch_size=len(video), num_frames=video.shape[1], video=video[:, :context], action=action)
    return model.sample(given, seed=0)


def sliding(model: Generator, video: Tensor, action: Tensor, context: int) -> Tensor:
    """The walk, half a window at a time, each from the half before."""
    made, half = as_float(video[:, :context]), WINDOW // 2
    for start in range(context - half, video.shape[1] - half, half):
        end = min(start + WINDOW, video.shape[1])
        given = Condition(
            batch_size=len(video),
            num_frames=end - start,
            video=made[:, start : start + half],
            action=action[:, start:end],
        )
        made = torch.cat([made, model.sample(given, seed=start)[:, half:]], dim=1)
    return made


def revisited(samples: Sequence[Sample], context: int) -> Tensor:
    """Which frames after the context show what was seen in it more than a window before them: ``N T``."""
    files = [Path(sample.path).with_suffix(".actions.npz") for sample in samples]
    poses = torch.stack([torch.from_numpy(np.load(file)["poses"]) for file in files])
    place, heading = poses[..., :2], poses[..., 2]
    turned = (heading[:, :, None] - heading[:, None] + math.pi).remainder(2 * math.pi) - math.pi
    alike = (torch.cdist(place, place) < 0.5) & (turned.abs() < math.radians(30))  # walks, later, earlier
    time = torch.arange(poses.shape[1])
    return (alike & (time < context) & (time[:, None] - time > WINDOW)).any(dim=2)[:, context:]
