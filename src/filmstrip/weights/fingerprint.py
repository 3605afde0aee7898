"""Names for weights: of a module, and of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


def fingerprint(module: nn.Module, *, without: Sequence[str] = ()) -> str:
    """A short name for a module's weights: other weights have another one. Submodules can be left ``without``."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(module.state_dict().items()):
        if name.partition(".")[0] in without:
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_fingerprint(fingerprints: Sequence[str]) -> str:
    """The fingerprint of several files, in their order; of one, its own."""
    return fingerprints[0] if len(fingerprints) == 1 else hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()
