"""One process's share of contrastive losses: python pairs.py FOLDER. With one process, the whole."""

import dataclasses
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.distributed import process
from filmstrip.distributed.parallel import parallelise
from filmstrip.distributed.ring import pass_on
from filmstrip.objectives.contrastive import Rows

ROWS = 8


def share(value):
    """This process's rows of all."""
    return value.chunk(process.world_size())[process.rank()]


def network(loss):
    run = systems.find("language.siglip")
    torch.manual_seed(0)
    vision = dataclasses.replace(run.objective.vision, width=16, depth=1, num_heads=2, size=16)
    text = dataclasses.replace(run.objective.text, width=16, depth=1, num_heads=2)
    return dataclasses.replace(run.objective, vision=vision, text=text, loss=loss).build()


def batch():
    sizes = {"B": ROWS, "T": 1, "H": 16, "W": 16, "K": 2, "L": 16, "V": 128}
    drawn = Captioned.example(sizes, torch.Generator().manual_seed(0))
    drawn["text"][5], drawn["text_length"][5] = drawn["text"][0], drawn["text_length"][0]  # of another process
    return {key: share(value) for key, value in drawn.items() if isinstance(value, torch.Tensor)}


def of_vectors(loss):
    """Loss and gradients of vectors alone, in float64."""
    generator = torch.Generator().manual_seed(1)
    video, text = (F.normalize(torch.randn(ROWS, 6, generator=generator).double(), dim=1) for _ in range(2))
    ids, index = torch.arange(ROWS)[:, None] % 6, torch.arange(ROWS)
    objective = network(loss).double()
    if process.is_several():
        objective.share_rows(pass_on, process.world_size(), process.rank())
    leaves = [share(video).clone().requires_grad_(), share(text).clone().requires_grad_()]
    rows = [Rows(leaf, share(ids), share(index)) for leaf in leaves]
    total = (objective._sigmoid if loss == "sigmoid" else objective._softmax)(*rows)
    total.backward()
    found = {
        "loss": total.detach(),
        "video": leaves[0].grad,
        "text": leaves[1].grad,
        "scale": objective.log_scale.grad,
    }
    if not process.is_several():
        return found
    for name in ("loss", "scale"):
        dist.all_reduce(found[name])
        found[name] /= process.world_size()
    for name in ("video", "text"):  # of the mean of the processes' losses
        parts = [torch.empty_like(found[name]) for _ in range(process.world_size())]
        dist.all_gather(parts, found[name])
        found[name] = torch.cat(parts) / process.world_size()
    return found


def of_network(loss):
    """Gradients of all weights after a step's backward pass."""
    objective = network(loss)
    model = parallelise(objective, "none", blocks=(), device=torch.device("cpu"), partial=False)
    model(batch()).total.backward()
    return {name: parameter.grad for name, parameter in objective.named_parameters()}


def of_queue(name):
    """Keys and gradients of two steps of contrast with momentum copies and a queue, whose weights stay."""
    run = systems.find(name)
    small = {"width": 16, "depth": 1, "num_heads": 2}
    vision = dataclasses.replace(run.objective.vision, **small, num_frames=1, size=16, patch_size=8)
    text = dataclasses.replace(run.objective.text, **small)
    losses = {"losses": ("contrast",), "embed_dim": 8, "queue_size": ROWS + 4}
    torch.manual_seed(0)
    objective = dataclasses.replace(run.objective, vision=vision, text=text, **losses).build().train()
    model = parallelise(objective, "none", blocks=(), device=torch.device("cpu"), partial=False)
    classes = torch.tensor([-1, 1, -1, 2, 1, -1, 1, 2])  # of which some are in several processes
    first = batch() | {"named_class": share(classes)}
    later = first | {"video": first["video"].flip(-1), "index": first["index"] + ROWS, "text": first["text"].flip(1)}
    for step, told in enumerate((first, later), start=1):
        objective.zero_grad()
        model(told).total.backward()
        objective.after_step(step)
    found = {f"queue.{name}": value.float() for name, value in objective.queue.state_dict().items()}
    return found | {f"weights.{name}": p.grad for name, p in objective.named_parameters() if p.grad is not None}


def main(folder):
    if process.world_size() > 1:
        dist.init_process_group("gloo")
    for name in ("sigmoid", "softmax", "language.blip", "language.omnivl"):
        if name.startswith("language."):
            found = of_queue(name)
        else:
            found = of_vectors(name) | {f"weights.{key}": grad for key, grad in of_network(name).items()}
        if process.rank() == 0:
            save_file({key: value.contiguous() for key, value in found.items()}, Path(folder) / f"{name}.safetensors")
    if process.is_several():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
