"""Tensors and JSON on disk, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from filmstrip.dist import process
from filmstrip.dist.tensors import whole


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole copies on the CPU, in the first process; nothing in the others, which must call it too."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if process.rank() == 0:
            kept[name] = full.to("cpu", copy=True).contiguous()
    return kept


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file; one that is there is replaced at once."""
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial)
    _replace(partial, path)


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file; one that is there is replaced at once."""
    write_text(json.dumps(value, indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file; one that is there is replaced at once."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    _replace(partial, path)


def _replace(partial: Path, path: Path) -> None:
    """Rename after the bytes have reached the disk: a power cut must not leave an empty file under a good name."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
