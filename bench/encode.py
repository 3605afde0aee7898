"""Encoding videos against its two floors: decoding them, and the encoder's own pass over their frames.

    python bench/encode.py [--files 24] [--rounds 5] [--width 384]

Decoding reads the same clips in the same process and drops them; the pass has them in memory. With workers that
decode beside the encoder, encoding cannot be faster than the slower of the two, and without it cannot be faster than
their sum: the last column is the achieved share of that floor. Weights are random (a DINOv2, ViT-S/14 by default,
eight uniform frames of 224 x 224 a clip). The rows alternate within each round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from filmstrip.commands.work.encode import encode_files
from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import Source, open_path
from filmstrip.inference import inference
from filmstrip.runs.encoders import VideoEncoder, load
from loader import make_files
from timing import alternate

BATCH = 4
FRAMES = 8


def save(folder: Path, width: int) -> None:
    torch.manual_seed(0)
    sizes = dict(hidden_size=width, num_hidden_layers=12, num_attention_heads=width // 64, image_size=224)
    transformers.Dinov2Model(transformers.Dinov2Config(patch_size=14, **sizes)).save_pretrained(folder)


def batches(source: Source, data: Data) -> list[torch.Tensor]:
    return [batch["video"] for batch in EvalLoader(source, data, "train", batch_size=BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=384, help="of the encoder, a multiple of 64")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "videos").mkdir()
        make_files(root / "videos", args.files)
        save(root / "encoder", args.width)
        model = load(root / "encoder", "cpu")
        model = VideoEncoder(model.encoder, Clip(num_frames=FRAMES, sampling="uniform", size=224))
        source = open_path(root / "videos")
        held = batches(source, Data(clip=model.clip, num_workers=0))

        def decode() -> None:
            batches(source, Data(clip=model.clip, num_workers=0))

        def forward() -> None:
            with inference(model):
                for video in held:
                    model(video)

        def encode(num_workers: int) -> None:
            out = root / "out"
            shutil.rmtree(out, ignore_errors=True)
            encode_files(model, [root / "videos"], out, level="frame", batch_size=BATCH, num_workers=num_workers)

        rows = {
            "decode": decode,
            "encoder": forward,
            "encode, no worker": lambda: encode(0),
            "encode, 1 worker": lambda: encode(1),
        }
        seconds = alternate(rows, args.rounds)
    clips = sum(len(video) for video in held)
    sum_, slower = seconds["decode"] + seconds["encoder"], max(seconds["decode"], seconds["encoder"])
    floors = {"encode, no worker": sum_, "encode, 1 worker": slower}
    print(f"{clips} clips of {FRAMES} frames; {os.cpu_count()} cores, torch has {torch.get_num_threads()} threads\n")
    print("| what | clips/s | floor, clips/s | share of it |\n|---|---:|---:|---:|")
    for name, taken in seconds.items():
        floor = floors.get(name)
        said = f"{clips / floor:.2f} | {floor / taken:.2f}" if floor else " | "
        print(f"| {name} | {clips / taken:.2f} | {said} |")


if __name__ == "__main__":
    main()
