"""A name for the weights that a module has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
