"""Reading weights from a file without running anything that it holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from filmstrip.errors import UserError
from filmstrip.weights.keymap import Weights


def read_weights(path: Path) -> Weights:
    """The tensors of a ``.safetensors`` file, or of a state that ``torch.save`` wrote.

    Raises:
        UserError: the file is not there, or cannot be read without unpickling objects or running TorchScript.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there, or is no file: give a file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is not a file of plain weights: {str(error).splitlines()[0]}") from None
