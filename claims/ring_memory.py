"""Attention along a ring of processes is exact, and a process's memory falls as the number of processes grows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from claims.ledger import Claim, Figure, below, equal
from filmstrip.distributed.ring import Ring
from filmstrip.measure.traced_step import Traced
from filmstrip.nn.ring_attention import own_tokens, ring_attention

RINGS = (1, 2, 3, 4)
HEADS, DIM, BLOCK, LARGEST = 4, 32, 128, 50.0
TOKENS = 4092
"""A multiple of all of these."""

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2023, Ring Attention (LWM's): no approximation, and a context that grows with the number of "
    "devices, since each holds its own part of the keys and values and one that is on its way.",
    here="Causal attention within two documents, forward and backward, of 4,092 tokens, 4 heads of 32 channels, "
    "scores of up to 50, blocks of 128; processes with gloo. Bytes are those of all tensors of a process that are "
    "alive at once.",
    baseline="The same attention with all scores in memory, float64.",
    figures={
        **{
            f"error {size}": Figure(
                says=f"{size} processes: largest relative error of outputs and gradients", digits=7
            )
            for size in RINGS
        },
        **{f"peak {size}": Figure(says=f"{size} processes: most MB of one at once") for size in RINGS},
        **{
            f"kept {size}": Figure(says=f"{size} processes: MB that one keeps for the backward pass")
            for size in RINGS
        },
        "dense": Figure(says="all scores in memory, float32: most MB at once"),
        "times 4": Figure(says="4 processes' peaks together, one alone = 1", digits=2),
    },
    expected=(
        below("peak 4", "peak 1", "of four processes each needs at most 30% of what one needs", by=7.0),
        below("peak 1", "dense", "blocks need less than a tenth of all scores", by=100.0),
        equal("times 4", 1.0, "nothing is held twice, but blocks on their way: within 25%", within=0.25),
        *(equal(f"error {size}", 0.0, f"{size} processes: exact to 1e-5", within=1e-5) for size in RINGS),
    ),
    minutes=1.0,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in RINGS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for rank in range(size):
            names = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            env = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in names.items()}
            command = [sys.executable, "-m", "claims.ring_memory", str(seed), str(folder / f"{size}.{rank}.json")]
            processes.append(subprocess.Popen(command, env=env))
        assert [process.wait() for process in processes] == [0] * size
        each = [json.loads((folder / f"{size}.{rank}.json").read_text()) for rank in range(size)]
        for name in ("error", "peak", "kept"):
            found[f"{name} {size}"] = max(values[name] for values in each)
        if size == 1:
            found["dense"] = each[0]["dense"]
    found["times 4"] = 4 * found["peak 4"] / found["peak 1"]
    return found


def inputs(seed: int) -> tuple[list[Tensor], Tensor]:
    """Queries, keys, values and the outputs' gradient, ``1 H N D`` float32; and documents ``1 N``."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(1, HEADS, TOKENS, DIM, generator=generator) for _ in range(4))
    q = q * (LARGEST / (q @ k.mT * DIM**-0.5).max())
    return [q, k, v, grad], (torch.arange(TOKENS) >= TOKENS // 3).long()[None]


def step(attend, given: list[Tensor]) -> tuple[list[Tensor], Traced, float]:
    """Outputs and gradients, what was alive meanwhile, and the bytes kept for the backward pass."""
    *leaves, grad = (x.clone().requires_grad_(i < 3) for i, x in enumerate(given))
    with Traced() as traced:
        out = attend(*leaves)
        kept = traced.now
        out.backward(grad)
    return [out.detach(), *(x.grad for x in leaves)], traced, kept


def process(seed: int, out: Path) -> None:
    """One process of a ring: how far it is from dense attention, and what it has in memory."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ring = Ring(striped=True)
    given, documents = inputs(seed)
    at = torch.arange(TOKENS)
    allowed = (at[:, None] >= at) & (documents[:, :, None] == documents[:, None])[:, None]

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT * DIM**-0.5).masked_fill(~allowed, float("-inf"))
        return scores.softmax(dim=-1) @ v

    expected, _, _ = step(
        lambda *x: F.scaled_dot_product_attention(*x, attn_mask=allowed), [x.double() for x in given]
    )
    own = [own_tokens(x, ring, dim=2) for x in given]
    part = own_tokens(documents, ring)
    got, traced, kept = step(lambda *x: ring_attention(*x, ring, document=part, block=BLOCK), own)
    right = [own_tokens(x, ring, dim=2) for x in expected]
    errors = [((one - other).abs().max() / other.abs().max()).item() for one, other in zip(got, right)]
    found = {"error": max(errors), "peak": traced.peak / 1e6, "kept": kept / 1e6}
    if ring.size == 1:
        _, traced, _ = step(dense, given)
        found["dense"] = traced.peak / 1e6
    out.write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
