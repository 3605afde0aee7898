"""Metadata of settings: whether a run may resume after a setting has changed.

A run resumes with other values of settings that do not affect the result, and may be extended; every other change
makes it another run.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any, Literal

Change = Literal["never", "free", "longer"]

FREE = MappingProxyType({"change": "free"})
"""Metadata of a field that does not affect the result of training: ``field(default=2, metadata=FREE)``."""
EXTENDABLE = MappingProxyType({"change": "longer"})
"""Metadata of a field for the length of a run, which may be extended."""


def change_of(setting: dataclasses.Field[Any]) -> Change:
    """How a field may change in a run that resumes."""
    return setting.metadata.get("change", "never")
