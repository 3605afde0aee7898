"""Published code as a reference without that code: weights and inputs by a recipe, and the outputs that it gave them.

The published code was run once, elsewhere, with the weights of :func:`recipe_weights` under its own names. Those
names, their shapes and samples of the outputs lie in ``stored/METHOD.npz``; ``stored/README.md`` says of each method
what was run. A test gives the same weights, through our key map, to our network and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

STORED = Path(__file__).parent / "stored"
SAMPLES = 256
"""Most numbers that are kept of one output."""
TOLERANCE = 2e-5
"""Largest error of an output, relative to its largest number."""
_SCALES = ("weight", "gamma", "scale", "running_var")
"""Last parts of the names of vectors that multiply: these lie around one, all other vectors around zero."""


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 numbers in ±√3 (mean 0, variance 1) that depend on ``name`` and the number of elements alone.

    The 64-bit outputs of Philox 4x64, keyed by the first 16 bytes of the name's SHA-256 (little-endian), counter 0;
    of each the upper 24 bits, as a fraction of 2^24.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key).random_raw(int(np.prod(shape, dtype=np.int64)))
    fractions = (bits >> np.uint64(40)).astype(np.float64) / 2**24
    return torch.from_numpy(((2 * fractions - 1) * 3**0.5).astype(np.float32)).reshape(shape)


def recipe_weights(names_and_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights for a state, by names and shapes alone; leave integer buffers and constants out of it.

    - Matrices and kernels: :func:`uniform`, divided by the root of the elements of one row (all axes but the first).
    - Tensors whose first axis is 1 (tokens, positions, gains shaped to broadcast): half of it.
    - Vectors and scalars: a quarter of it, around 1 if the name ends in ``weight``, ``gamma``, ``scale`` or
      ``running_var``, else around 0.
    """
    return {name: _weight(name, tuple(shape)) for name, shape in names_and_shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    values = uniform(name, shape)
    if len(shape) < 2:
        return (1 if name.endswith(_SCALES) else 0) + values / 4
    return values / 2 if shape[0] == 1 else values / float(np.prod(shape[1:])) ** 0.5


def recipe_input(name: str, shape: tuple[int, ...]) -> Tensor:
    """An input of mean 0 and variance 1: :func:`uniform` of ``input:NAME``."""
    return uniform(f"input:{name}", shape)


def recipe_video(name: str, shape: tuple[int, ...]) -> Tensor:
    """``uint8`` pixels, evenly distributed over 0..255, by the same numbers as :func:`recipe_input`."""
    fractions = recipe_input(name, shape).double() / (2 * 3**0.5) + 0.5
    return (fractions * 256).floor().clamp(0, 255).to(torch.uint8)


def sampled(output: Tensor) -> Tensor:
    """At most :data:`SAMPLES` numbers of an output, evenly spaced over its elements in row-major order."""
    flat = output.detach().flatten().float()
    if len(flat) <= SAMPLES:
        return flat
    return flat[torch.from_numpy(np.linspace(0, len(flat) - 1, SAMPLES).round().astype(np.int64))]


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the recipe can make: all that is floating-point."""
    return {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}


def eps_of(network: nn.Module) -> dict[str, float]:
    """What each norm adds to the variance, which hardly shows in the outputs, by the norm's name."""
    return {name: m.eps for name, m in network.named_modules() if isinstance(getattr(m, "eps", None), float)}


@dataclass(frozen=True)
class Stored:
    """What is kept of one run of published code."""

    shapes: dict[str, tuple[int, ...]]
    """Of the weights that the recipe made, by the published names."""
    eps: dict[str, float]
    """:func:`eps_of` the published network."""
    outputs: dict[str, Tensor]
    """:func:`sampled`, by a name."""

    def weights(self) -> dict[str, Tensor]:
        """The weights that the published code had."""
        return recipe_weights(self.shapes)

    def error(self, name: str, output: Tensor) -> float:
        """The largest difference of our output from the stored one, relative to the largest absolute value there."""
        kept, ours = self.outputs[name], sampled(output)
        assert kept.shape == ours.shape, f"{tuple(ours.shape)} numbers, {tuple(kept.shape)} stored"
        return ((kept - ours).abs().max() / kept.abs().max()).item()

    def other_eps(self, network: nn.Module, names: Mapping[str, str]) -> dict[str, tuple[float, float]]:
        """Our norms, and what they and the published ones add, where the two differ; ``names`` are ours to theirs."""
        theirs = {
            name: self.eps.get(names.get(f"{name}.weight", "").removesuffix(".weight")) for name in eps_of(network)
        }
        return {name: (eps, theirs[name]) for name, eps in eps_of(network).items() if theirs[name] != eps}


def stored(method: str) -> Stored:
    """What ``stored/METHOD.npz`` holds."""
    with np.load(STORED / f"{method}.npz") as file:
        shapes = {name: tuple(shape) for name, shape in json.loads(file["shapes"].tobytes()).items()}
        eps = {name: float(value) for value, names in json.loads(file["eps"].tobytes()).items() for name in names}
        outputs = {n: torch.from_numpy(file[n]) for n in file.files if n not in ("shapes", "eps")}
        return Stored(shapes, eps, outputs)


def store(
    method: str, shapes: Mapping[str, tuple[int, ...]], eps: Mapping[str, float], outputs: Mapping[str, Tensor]
) -> Path:
    """Write ``stored/METHOD.npz`` from what published code gave; used once, where that code is at hand."""
    path = STORED / f"{method}.npz"
    by_eps = {str(value): [name for name in eps if eps[name] == value] for value in sorted(set(eps.values()))}
    said = {"shapes": json.dumps(shapes, separators=(",", ":")), "eps": json.dumps(by_eps, separators=(",", ":"))}
    np.savez_compressed(
        path,
        **{name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in said.items()},
        **{name: sampled(output).numpy() for name, output in outputs.items()},
    )
    return path
