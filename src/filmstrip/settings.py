"""What a setting says about itself, beside its type and its docstring: whether a run may go on when it has changed.

A run that was begun goes on with other values of settings that decide nothing of what is learnt, and for longer than
it was planned for; every other change makes it another run.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any, Literal

Change = Literal["never", "free", "longer"]

FREE = MappingProxyType({"change": "free"})
"""Metadata of a field that decides nothing of what is learnt: ``field(default=2, metadata=FREE)``."""
EXTENDABLE = MappingProxyType({"change": "longer"})
"""Metadata of a field that says how long a run lasts: it may be made longer."""


def change_of(setting: dataclasses.Field[Any]) -> Change:
    """What a field says of its changes."""
    return setting.metadata.get("change", "never")
