"""LPIPS's published weights: VGG-16 or AlexNet in torchvision's layout, and the linear layers; one file or two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from filmstrip.errors import UserError
from filmstrip.models.perceptual import Network, Perceptual
from filmstrip.weights.files import read_weights
from filmstrip.weights.keymap import Weights, check_names, some

# torchvision's number of each convolution among a network's layers, by our stage and place in it
_CONVS: dict[Network, tuple[tuple[int, ...], ...]] = {
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
    "alex": ((0,), (3,), (6,), (8,), (10,)),
}
_FEATURES = r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)"

_SPARE = (r"classifier\..*", r"scaling_layer\.(?:shift|scale)", r"lins\.\d\.model\.1\.weight")
"""A classifier after the features, constants, and lpips's second name for its linear layers."""


def network_of(theirs: Weights) -> Network | None:
    """Which network the features belong to, by the kernel of the first layer; none where there are no features."""
    for name, tensor in theirs.items():
        if (match := re.fullmatch(_FEATURES, name)) and (match[1], match[2]) == ("0", "weight"):
            return "alex" if tensor.shape[-1] == 11 else "vgg"
    return None


def from_lpips(theirs: Weights, network: Network = "vgg") -> Weights:
    """Ours from ``features.N.*`` (torchvision) or ``net.sliceS.N.*`` (lpips), and ``linS.model.1.weight``.

    Raises:
        UserError: there is anything else, but for what ``_SPARE`` lists.
    """
    numbers = {number: (stage, i) for stage, row in enumerate(_CONVS[network]) for i, number in enumerate(row)}
    ours, known = {}, []
    for name, tensor in theirs.items():
        if (match := re.fullmatch(_FEATURES, name)) and int(match[1]) in numbers:
            stage, i = numbers[int(match[1])]
            ours[f"stages.{stage}.{i}.{match[2]}"] = tensor
        elif match := re.fullmatch(r"lin([0-4])\.model\.1\.weight", name):
            ours[f"weights.{match[1]}"] = tensor.flatten()
        else:
            continue
        known.append(name)
    check_names("LPIPS's file", theirs, known, spare=_SPARE)
    return ours


def _network_by_name(files: Sequence[Path]) -> Network:
    return "alex" if any("alex" in path.name.lower() for path in files) else "vgg"


def load_perceptual(files: Sequence[Path]) -> Perceptual:
    """The stand-in without files, else LPIPS from ``.safetensors`` or ``.pth`` files that hold its weights.

    The features say which network it is. A file that is not there makes a network that says so when it is used (an
    AlexNet if a file's name says ``alex``): a run folder holds the weights itself.

    Raises:
        UserError: a file cannot be read without unpickling, or weights are missing.
    """
    if not files:
        return Perceptual.stand_in()
    if torch.get_default_device().type == "meta":  # sizes alone are asked for
        return Perceptual(_network_by_name(files))
    if absent := [str(path) for path in files if not path.is_file()]:
        network = Perceptual(_network_by_name(files))
        network.lacking = f"the perceptual loss needs {', '.join(absent)}, which is not there: give LPIPS's weights"
        return network
    theirs = {name: tensor for path in files for name, tensor in read_weights(path).items()}
    kind = network_of(theirs) or "vgg"
    network = Perceptual(kind)
    try:
        weights = from_lpips(theirs, kind)
    except UserError as error:
        raise UserError(f"{', '.join(map(str, files))}: {error}") from None
    wanted = {name for name, _ in network.named_parameters()}
    if missing := sorted(wanted - weights.keys()):
        raise UserError(
            f"{', '.join(map(str, files))}: no {some(missing)}; "
            "LPIPS needs VGG-16 or AlexNet (features.0.weight ...) and its linear layers (lin0.model.1.weight ...)"
        )
    try:
        network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise UserError(f"{', '.join(map(str, files))}: features and linear layers do not fit: {said}") from None
    return network
