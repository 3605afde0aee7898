"""VideoMAE's training steps, ours against ``transformers``, in one process, alternating, at the same precision.

    python bench/videomae.py                       # ViT-S and ViT-B, pretraining and fine-tuning, two precisions
    python bench/videomae.py --cases "ViT-S pretraining" --precisions float32 --rounds 3

A step is a forward and a backward pass and AdamW's update on two clips of 16 x 224 x 224. Both get the same uint8
clips and hide the same cubes. Memory is the peak resident set over four steps in a process of its own, less what it
had before the model was built. "Share of the matrix rate" is ours: floating-point operations of the matrix products
over what the same time would do in one large product.
"""

from __future__ import annotations

from functools import partial

import torch

from filmstrip.nn.normalise import Normalise
from filmstrip.nn.tubelet_masking import choose_tubelets
from filmstrip.protocols import Grid
from filmstrip.systems.pretraining import videomae
from filmstrip.systems.recognition import vit
from peers import Case, Step, compare, training, without_drop_path

CLIPS, PLACES, CLASSES = 2, 8 * 14 * 14, 400
TASKS = {"pretraining": (videomae.SMALL, videomae.BASE), "fine-tuning": (vit.SMALL, vit.BASE)}
SIZES = {"S": 0, "B": 1}


def data() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (CLIPS, 16, 3, 224, 224), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.arange(CLIPS), "label": torch.arange(CLIPS)}


def ours(task: str, size: str, precision: str) -> Step:
    objective, batch = without_drop_path(TASKS[task][SIZES[size]].build()), data()
    return training(objective.parameters(), lambda: objective(batch).total, precision)


def theirs(task: str, size: str, precision: str) -> Step:
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
        hidden = choose_tubelets(batch["seed"], Grid(8, 14, 14), "tube", 0.9, use="videomae.masks")[1]
        mask = torch.zeros(CLIPS, PLACES, dtype=torch.bool).scatter_(1, hidden, True)
        return training(model.parameters(), lambda: model(normalise(batch["video"]), mask).loss, precision)
    model = transformers.VideoMAEForVideoClassification(config).train()
    return training(
        model.parameters(), lambda: model(normalise(batch["video"]), labels=batch["label"]).loss, precision
    )


CASES = {
    f"ViT-{size} {task}": Case(partial(ours, task, size), partial(theirs, task, size))
    for size in SIZES
    for task in TASKS
}

if __name__ == "__main__":
    compare(CASES, __file__, __doc__.splitlines()[0])
