"""TimeSformer and ViViT, training steps and inference, ours against ``transformers``, alternating in one process.

    python bench/plain_transformers.py
    python bench/plain_transformers.py --cases "TimeSformer-S training" --precisions float32 --rounds 3

One clip of 8 (TimeSformer) or 16 frames (ViViT), 224 x 224 pixels, uint8 for both. A training step is a forward and a
backward pass and AdamW's update. Memory and shares are measured as in ``bench/videomae.py``. In bfloat16 only
ratios mean anything on a CPU without instructions for it, and a line says so.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.systems.recognition import timesformer, vivit
from peers import Case, Step, compare, inference, training

CLASSES = 400
WIDTHS = {"S": {"width": 384, "num_heads": 6}, "B": {"width": 768, "num_heads": 12}}
NETWORKS = {
    "TimeSformer": replace(timesformer.base_k400().objective, dropout=0.0, num_classes=CLASSES),
    "ViViT": replace(vivit.BASE, num_frames=16, num_classes=CLASSES),
}
TASKS = ("training", "inference")


def data(frames: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, frames, 3, 224, 224), dtype=torch.uint8, generator=generator)
    return {"video": video, "label": torch.zeros(1, dtype=torch.int64)}


def sized(network: str, size: str) -> ClassificationConfig:
    return replace(NETWORKS[network], **WIDTHS[size])


def ours(network: str, size: str, task: str, precision: str) -> Step:
    config = sized(network, size)
    objective, batch = config.build(), data(config.num_frames)
    if task == "inference":
        objective.eval()
        return inference(lambda: objective.classify(batch["video"]), precision)
    return training(objective.train().parameters(), lambda: objective(batch).total, precision)


def theirs(network: str, size: str, task: str, precision: str) -> Step:
    import transformers

    name = {"TimeSformer": "Timesformer", "ViViT": "Vivit"}[network]
    config = sized(network, size)
    model = getattr(transformers, f"{name}ForVideoClassification")(
        getattr(transformers, f"{name}Config")(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=4 * config.width,
            num_frames=config.num_frames,
            num_labels=CLASSES,
        )
    )
    batch, normalise = data(config.num_frames), Normalise()
    if task == "inference":
        model.eval()
        return inference(lambda: model(normalise(batch["video"])).logits, precision)
    return training(
        model.train().parameters(), lambda: model(normalise(batch["video"]), labels=batch["label"]).loss, precision
    )


CASES = {
    f"{network}-{size} {task}": Case(partial(ours, network, size, task), partial(theirs, network, size, task))
    for size in WIDTHS
    for network in NETWORKS
    for task in TASKS
}

if __name__ == "__main__":
    compare(CASES, __file__, __doc__.splitlines()[0])
