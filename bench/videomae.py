"""VideoMAE's training steps, ours against ``transformers``, in one process, alternating, at the same precision.

    python bench/videomae.py                       # ViT-S and ViT-B, pretraining and fine-tuning, two precisions
    python bench/videomae.py --sizes small --precisions float32 --rounds 3

A step is a forward and a backward pass and AdamW's update on two clips of 16 x 224 x 224. Both get the same uint8
clips and hide the same cubes. Memory is the peak resident set over four steps in a process of its own, less what it
had before the model was built. "Share of the matrix rate" is ours: floating-point operations of the matrix products
over what the same time would do in one large product.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch

from filmstrip.evals.throughput import count_flops, matrix_rate, peak_memory
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Grid
from filmstrip.systems.pretraining import videomae
from filmstrip.systems.recognition import vit
from timing import alternate

CLIPS, PLACES, CLASSES = 2, 8 * 14 * 14, 400
TASKS = {"pretraining": (videomae.SMALL, videomae.BASE), "fine-tuning": (vit.SMALL, vit.BASE)}
SIZES = {"small": 0, "base": 1}


def data() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (CLIPS, 16, 3, 224, 224), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.arange(CLIPS), "label": torch.arange(CLIPS)}


def stepper(parameters, loss: Callable[[], torch.Tensor], precision: str) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(parameters, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext():
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def ours(task: str, size: str, precision: str) -> Callable[[], None]:
    config, batch = TASKS[task][SIZES[size]], data()
    objective = config.build().train()
    for module in objective.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0  # the other library has no stochastic depth
    return stepper(objective.parameters(), lambda: objective(batch).total, precision)


def theirs(task: str, size: str, precision: str) -> Callable[[], None]:
    import transformers

    network, pre = TASKS[task][SIZES[size]], TASKS["pretraining"][SIZES[size]]
    config = transformers.VideoMAEConfig(
        hidden_size=network.width,
        num_hidden_layers=network.depth,
        num_attention_heads=network.num_heads,
        intermediate_size=4 * network.width,
        decoder_hidden_size=pre.decoder_width,
        decoder_num_hidden_layers=pre.decoder_depth,
        decoder_num_attention_heads=pre.decoder_num_heads,
        decoder_intermediate_size=4 * pre.decoder_width,
        use_mean_pooling=task == "fine-tuning",
        num_labels=CLASSES,
    )
    batch, normalise = data(), Normalise()
    if task == "pretraining":
        model = transformers.VideoMAEForPreTraining(config).train()
        hidden = videomae.choose_cubes(batch["seed"], Grid(8, 14, 14), "tube", 0.9)[1]
        mask = torch.zeros(CLIPS, PLACES, dtype=torch.bool).scatter_(1, hidden, True)
        return stepper(model.parameters(), lambda: model(normalise(batch["video"]), mask).loss, precision)
    model = transformers.VideoMAEForVideoClassification(config).train()
    return stepper(
        model.parameters(), lambda: model(normalise(batch["video"]), labels=batch["label"]).loss, precision
    )


def memory(which: str, task: str, size: str, precision: str) -> float:
    """Peak gigabytes of a process that trains one of the two."""
    command = [sys.executable, __file__, "--memory-of", which, task, size, precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(which: str, task: str, size: str, precision: str) -> None:
    if which == "theirs":
        import transformers  # noqa: F401 - its own size is not the model's
    with peak_memory(torch.device("cpu")) as peak:
        before = peak()
        step = {"ours": ours, "theirs": theirs}[which](task, size, precision)
        for _ in range(4):
            step()
        print((peak() - before) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        return print_memory(*args.memory_of)
    print("| step | precision | ours, s | speed, transformers = 1 | GB, ours / theirs | share of matrix rate |")
    print("|---|---|---:|---:|---:|---:|")
    for precision in args.precisions:
        rate = matrix_rate(getattr(torch, precision))
        for size in args.sizes:
            for task in args.tasks:
                both = {"ours": ours(task, size, precision), "theirs": theirs(task, size, precision)}
                flops = count_flops(both["ours"])
                seconds = alternate(both, args.rounds)
                peaks = [memory(which, task, size, precision) for which in ("ours", "theirs")]
                print(
                    f"| ViT-{size[0].upper()} {task} | {precision} | {seconds['ours']:.2f} "
                    f"| {seconds['theirs'] / seconds['ours']:.2f} | {peaks[0]:.2f} / {peaks[1]:.2f} "
                    f"| {flops / seconds['ours'] / rate:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
