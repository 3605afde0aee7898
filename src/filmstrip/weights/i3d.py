"""I3D's published Kinetics-400 weights, in the two layouts that they are passed around in.

``rgb_imagenet.pt`` of pytorch-i3d (``Mixed_3b.b1a.conv3d.weight``) is a state that is read as it is. The TorchScript
``i3d_torchscript.pt`` that FVD is computed with (``mixed_3b.branch_1.0.conv3d.weight``) is a program, which is never
run here; whoever trusts it takes the weights out once:

    import torch
    from safetensors.torch import save_file
    state = torch.jit.load("i3d_torchscript.pt", map_location="cpu").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, "i3d.safetensors")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.i3d import I3D
from filmstrip.weights.files import read_weights
from filmstrip.weights.keymap import COUNTERS, Weights, check_names

_STEM = ("onv3d_1a_7x7", "onv3d_2b_1x1", "onv3d_2c_3x3")
_BLOCKS = (("3b", "3c"), ("4b", "4c", "4d", "4e", "4f"), ("5b", "5c"))
_UNITS = ((0, 0, "b0", "branch_0"), (1, 0, "b1a", "branch_1.0"), (1, 1, "b1b", "branch_1.1"))
_UNITS += ((2, 0, "b2a", "branch_2.0"), (2, 1, "b2b", "branch_2.1"), (3, 0, "b3b", "branch_3.1"))
_NORM = ("weight", "bias", "running_mean", "running_var")


def load_i3d(path: Path, *, norm_eps: float = 1e-3) -> I3D:
    """The published network with the weights of a file, in evaluation mode.

    Raises:
        UserError: the file cannot be read without running it, or is not I3D in a layout that is known.
    """
    try:
        theirs = read_weights(path)
    except UserError as error:
        if "torchscript" in str(error).lower():
            raise UserError(
                f"{path} is TorchScript, a program that is not run here: take its weights out once with "
                "torch.jit.load(path).state_dict() and safetensors' save_file (filmstrip.weights.i3d shows how)"
            ) from None
        raise
    try:
        ours = from_published(theirs)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    network = I3D(num_classes=len(ours["head.weight"]), norm_eps=norm_eps)
    try:
        network.load_state_dict(ours, strict=False)  # the normalisation of pixels is ours, batches are not counted
    except RuntimeError as error:
        raise UserError(f"{path} does not fit I3D: {str(error).splitlines()[1].strip()}") from None
    return network.eval()


def from_published(theirs: Mapping[str, Tensor], *, head: bool = True) -> Weights:
    """Weights of :class:`~filmstrip.models.i3d.I3D` from either published layout; its head's only with ``head``.

    Raises:
        UserError: the names are those of neither, or not all and only those.
    """
    for names in (published_names(torchscript=False), published_names(torchscript=True)):
        if names["stem.0.conv.weight"] in theirs:
            heads = [key for name, key in names.items() if name.startswith("head.")]
            if not head:
                names = {name: key for name, key in names.items() if key not in heads}
            spare = (COUNTERS, *([] if head else map(re.escape, heads)))
            check_names("this I3D", theirs, names.values(), spare=spare)
            ours = {name: theirs[key] for name, key in names.items()}
            return ours | ({"head.weight": ours["head.weight"].flatten(1)} if head else {})
    raise UserError(
        "this is not I3D in a layout that is known: pytorch-i3d has Conv3d_1a_7x7.conv3d.weight, the TorchScript "
        f"conv3d_1a_7x7.conv3d.weight; the first names given are {', '.join(list(theirs)[:3])}"
    )


def to_published(ours: Mapping[str, Tensor], *, torchscript: bool = False) -> Weights:
    """The inverse of :func:`from_published`, in pytorch-i3d's layout or in the TorchScript's."""
    theirs = {key: ours[name] for name, key in published_names(torchscript).items() if name in ours}
    key = published_names(torchscript)["head.weight"]
    return theirs | {key: ours["head.weight"][:, :, None, None, None]}


def published_names(torchscript: bool = False) -> dict[str, str]:
    """Ours to theirs, in pytorch-i3d's layout or in the TorchScript's."""
    letter, mixed, norm = ("c", "mixed", "batch3d") if torchscript else ("C", "Mixed", "bn")
    units = {f"stem.{i}": letter + name for i, name in enumerate(_STEM)}
    for stage, blocks in enumerate(_BLOCKS):
        for i, block in enumerate(blocks):
            for branch, unit, *keys in _UNITS:
                key = f"{mixed}_{block}.{keys[torchscript]}"
                units[f"stages.{stage}.{i}.branches.{branch}.{unit}"] = key
    names = {f"{unit}.conv.weight": f"{key}.conv3d.weight" for unit, key in units.items()}
    names |= {f"{unit}.norm.{part}": f"{key}.{norm}.{part}" for unit, key in units.items() for part in _NORM}
    head = "conv3d_0c_1x1" if torchscript else "logits"
    return names | {f"head.{part}": f"{head}.conv3d.{part}" for part in ("weight", "bias")}
