"""TECO keeps revisited places of a maze as they were, where a model of short context does not.

    python claims/teco_consistency.py

Walks through mazes whose every other way leads back to a place seen long ago. Two TECOs of one size learn from pixels
and actions: one on whole walks, one on clips of 8 frames, which it continues in a sliding window; in each step both
see as many frames, and prior and decoder learn from as many. Both are given the first part of unseen walks and all
actions, and are compared with what was really seen: frame by frame, and in the frames that show again what was given
more than a window before (``revisited``: within half a cell and 30 degrees). Paper, DMLab, 156 frames after 144
(Yan et al. 2023, table 3.1, figure 3.5).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.reading.loader import eval_batches
from filmstrip.data.sample import Sample
from filmstrip.data.synthetic.mazes import Mazes
from filmstrip.evals.frame_metrics import FrameMetrics
from filmstrip.inference import inference
from filmstrip.protocols import Condition, Generator, as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.generation import teco
from filmstrip.train.config import Loop, Optim

PAPER = {"TECO, whole walks": (21.9, 0.157), "short context": (11.2, 0.487)}  # the latter: Perceiver AR
WINDOW = 8
LEARNT = 2  # of WINDOW frames, in each step


def run_of(args: argparse.Namespace, num_frames: int) -> Run:
    """TECO on clips of so many frames; batches have the same number of frames, of as many walks."""
    mazes = Mazes(
        num_train=args.videos,
        num_test=32,
        num_frames=args.frames,
        rooms=args.rooms,
        size=args.size,
        look_round=args.look_round,
    )
    return Run(
        data=Data(
            synthetic=mazes,
            clip=Clip(num_frames=num_frames, stride=1, size=args.size, short_side=(args.size, args.size)),
            augment=Augment(mirror=0.0),
            clips_per_video=args.frames // num_frames,
            batch_size=args.batch_size * args.frames // num_frames,
        ),
        objective=teco.TECOConfig(
            num_frames=num_frames,
            size=args.size,
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
        optim=Optim(lr=1e-3, weight_decay=0.0),
        train=Loop(steps=args.steps, log_every=50),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--videos", type=int, default=400, help="walks to learn from")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--rooms", type=int, default=2, help="rooms along a side of a maze")
    parser.add_argument("--look-round", action="store_true", help="turn where one stands instead of walking")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=4, help="whole walks in a step")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    metrics, curves = FrameMetrics(device=torch.device("cpu")), {}
    perceptual = metrics.names[-1]
    with tempfile.TemporaryDirectory() as temporary:
        for name, length, make in (("TECO, whole walks", args.frames, whole), ("short context", WINDOW, sliding)):
            run = run_of(args, length)
            result = experiment.train(run, (args.out or Path(temporary)) / name.replace(" ", "-"))
            data = replace(run.data, clip=replace(run.data.clip, num_frames=args.frames))
            batch = next(iter(eval_batches(result.source, data, data.eval_split)))
            video, action = batch["video"], batch["action"]
            with inference(result.objective):
                made = make(result.objective, video, action, args.context)
            curves[name] = metrics(made[:, args.context :], video[:, args.context :])
    still = video[:, args.context - 1 : args.context].expand_as(video[:, args.context :])
    curves["the last frame given"] = metrics(still, video[:, args.context :])
    again = revisited([result.source.split(data.eval_split)[i] for i in batch["index"]], args.context)

    points = range(0, args.frames - args.context, max(1, (args.frames - args.context) // 6))
    shown = " | ".join(map(str, points))
    print(f"\n| | paper: PSNR, LPIPS | here: PSNR, {perceptual} | revisited | PSNR at frame {shown} |")
    print("|---|---:|---:|---:|" + "---:|" * len(points))
    for name, curve in curves.items():
        mean = curve["psnr"].mean(), curve[perceptual].mean()
        back = curve["psnr"][again].mean(), curve[perceptual][again].mean()
        shown = " | ".join(f"{curve['psnr'][:, t].mean():.1f}" for t in points)
        paper = "{:.1f}, {:.3f}".format(*PAPER[name]) if name in PAPER else ""
        columns = f"{mean[0]:.2f}, {mean[1]:.4f} | {back[0]:.2f}, {back[1]:.4f}"
        print(f"| {name} | {paper} | {columns} | {shown} |")
    ours, short = (curves[name] for name in PAPER)
    walks = [(ours["psnr"] - short["psnr"])[i][again[i]].mean() for i in range(len(again)) if again[i].any()]
    gain, error = torch.stack(walks).mean().item(), torch.stack(walks).std().item() / len(walks) ** 0.5
    print(
        f"\nin {again.sum()} revisited frames of {len(walks)} walks, having all of the walk in sight gives ", end=""
    )
    print(f"{gain:+.2f} dB (standard error {error:.2f} over walks)")
    print(f"whole walks keep places as they were better than a short context: {gain > 2 * error} (paper: True)")


if __name__ == "__main__":
    main()
