"""Layouts of public datasets, one file each: video files are read in place, arrays are converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from filmstrip.data.layouts import bair, cater, droid, kinetics, lerobot, ssv2, teco, ucf101, viper_rl
from filmstrip.data.sample import Source


@dataclass(frozen=True)
class Layout:
    """A layout of video files: a test whether a folder has it, and a function that opens the collection."""

    detect: Callable[[Path], bool]
    open: Callable[..., Source]
    """Function of the folder, and of a camera's name if there are several."""
    cameras: bool = False
    """Whether each recording has videos of several cameras."""


LAYOUTS: dict[str, Layout] = {
    "ucf101": Layout(ucf101.detect, ucf101.open_ucf101),
    "kinetics": Layout(kinetics.detect, kinetics.open_kinetics),
    "ssv2": Layout(ssv2.detect, ssv2.open_ssv2),
    "teco": Layout(teco.detect, teco.open_teco),
    "cater": Layout(cater.detect, cater.open_cater),
    "lerobot": Layout(lerobot.detect, lerobot.open_lerobot, cameras=True),
    "droid": Layout(droid.detect, droid.open_droid, cameras=True),
}

ARRAYS: dict[str, ModuleType] = {"bair": bair, "teco": teco, "viper_rl": viper_rl}
"""Layouts of arrays: ``detect_arrays(root)``, ``array_files(root)`` (with their splits, or split/class),
``read_arrays(file)`` and ``FPS``."""
