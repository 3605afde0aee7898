"""LPIPS's published weights: VGG-16 in torchvision's layout, and its linear layers; one file or two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from filmstrip.errors import UserError
from filmstrip.models.perceptual import Perceptual
from filmstrip.weights.files import read_weights
from filmstrip.weights.keymap import Weights

# torchvision's number of each convolution among VGG-16's layers, by our stage and place in it
_CONVS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_NUMBERS = {number: (stage, i) for stage, row in enumerate(_CONVS) for i, number in enumerate(row)}


def from_lpips(theirs: Weights) -> Weights:
    """Ours from ``features.N.*`` (torchvision) or ``net.sliceS.N.*`` (lpips), and ``linS.model.1.weight``."""
    ours = {}
    for name, tensor in theirs.items():
        if match := re.fullmatch(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)", name):
            stage, i = _NUMBERS[int(match[1])]
            ours[f"stages.{stage}.{i}.{match[2]}"] = tensor
        elif match := re.fullmatch(r"lin(\d)\.model\.1\.weight", name):
            ours[f"weights.{match[1]}"] = tensor.flatten()
    return ours


def load_perceptual(files: Sequence[Path]) -> Perceptual:
    """The stand-in without files, else LPIPS from ``.safetensors`` or ``.pth`` files that hold its weights.

    A file that is not there makes a network that says so when it is used: a run folder holds the weights itself.

    Raises:
        UserError: a file cannot be read without unpickling, or weights are missing.
    """
    if not files:
        return Perceptual.stand_in()
    network = Perceptual()
    absent = [str(path) for path in files if not path.is_file()]
    if absent:
        network.lacking = f"the perceptual loss needs {', '.join(absent)}, which is not there: give LPIPS's weights"
        return network
    weights = {name: tensor for path in files for name, tensor in from_lpips(read_weights(path)).items()}
    wanted = {name for name, _ in network.named_parameters()}
    if missing := sorted(wanted - weights.keys()):
        raise UserError(
            f"{', '.join(map(str, files))}: no {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}; "
            "LPIPS needs VGG-16 (features.0.weight ...) and its linear layers (lin0.model.1.weight ...)"
        )
    network.load_state_dict(weights, strict=False)
    return network
