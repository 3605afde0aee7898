"""What accelerators can do at most, by their makers' data sheets, whose sizes of memory count 2^30 bytes a GB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """The limits of one accelerator, and of what connects it to others. What is not known is none."""

    name: str
    rates: Mapping[str, float]
    """Maximum rate of dense matrix products by precision, FLOP/s (two for a multiply-add). ``float32`` is that of
    torch's default, which rounds nothing (no TF32)."""
    memory: float
    """Size of its memory, bytes."""
    bandwidth: float
    """Rate of reading and writing its memory, bytes/s."""
    link: float | None = None
    """Rate of sending to one neighbour in the same machine, bytes/s in one direction."""
    per_machine: int = 1
    """Number of accelerators that these links connect."""
    network: float | None = None
    """Rate of sending to another machine, bytes/s for each accelerator."""
    host: float | None = None
    """Rate of moving data to the machine's own memory, bytes/s in one direction."""
    multiprocessors: int | None = None
    """Number of units among which a GPU's kernel shares out its thread blocks."""
    source: str

    def link_of(self, processes: int) -> float | None:
        """Rate of sending along a ring of so many processes: that of its slowest link."""
        return self.link if processes <= self.per_machine else self.network


ACCELERATORS = {
    each.name: each
    for each in (
        Accelerator(
            name="a100",
            rates={"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
            memory=80 * 2**30,
            bandwidth=2.039e12,
            link=300e9,
            per_machine=8,
            network=25e9,
            host=32e9,
            multiprocessors=108,
            source=(
                "NVIDIA A100 data sheet (80 GB SXM): NVLink 600 GB/s and PCIe 4 64 GB/s both ways together; DGX A100 "
                "data sheet: a 200 Gb/s network card for each; 108 multiprocessors: GA100 white paper"
            ),
        ),
        Accelerator(
            name="h100",
            rates={"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 66.9e12},
            memory=80 * 2**30,
            bandwidth=3.35e12,
            link=450e9,
            per_machine=8,
            network=50e9,
            host=64e9,
            multiprocessors=132,
            source=(
                "NVIDIA H100 data sheet (SXM), rates without sparsity: NVLink 900 GB/s and PCIe 5 128 GB/s both ways "
                "together; DGX H100 data sheet: a 400 Gb/s network card for each; 132 multiprocessors: GH100 white "
                "paper"
            ),
        ),
        Accelerator(
            name="h200",
            rates={"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 66.9e12},
            memory=141 * 2**30,
            bandwidth=4.8e12,
            link=450e9,
            per_machine=8,
            network=50e9,
            host=64e9,
            multiprocessors=132,
            source="NVIDIA H200 data sheet (SXM); otherwise as h100",
        ),
        Accelerator(
            name="tpu-v4",
            rates={"bfloat16": 275e12},
            memory=32 * 2**30,
            bandwidth=1.2e12,
            link=50e9,
            per_machine=4096,
            source=(
                "Google Cloud TPU v4 documentation; links: Jouppi et al. 2023, TPU v4, of which a ring uses one of "
                "the six for each direction (50 GB/s)"
            ),
        ),
        Accelerator(
            name="tpu-v5p",
            rates={"bfloat16": 459e12},
            memory=95 * 2**30,
            bandwidth=2.765e12,
            link=100e9,
            per_machine=8960,
            source=(
                "Google Cloud TPU v5p documentation: 1200 GB/s both ways together over six links, of which a ring "
                "uses one for each direction"
            ),
        ),
    )
}
"""The accelerators, by name."""
