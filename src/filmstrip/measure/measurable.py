"""What networks are measured by: all that is asked of a run here."""

from __future__ import annotations

from typing import Protocol

from filmstrip.data.config import Data
from filmstrip.protocols import Objective


class Builds(Protocol):
    """The configuration of a method."""

    def build(self) -> Objective:
        """The network, with fresh weights."""
        ...


class Measurable(Protocol):
    """A method and the data that it reads."""

    @property
    def data(self) -> Data:
        """What is read, and how clips are cut from it."""
        ...

    @property
    def objective(self) -> Builds:
        """The method."""
        ...
