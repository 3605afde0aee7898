"""Settings of which a phase of an objective, such as a GAN's discriminator or an agent's actor, has its own value."""

from __future__ import annotations

from filmstrip.bounds import Rate
from filmstrip.errors import UserError
from filmstrip.protocols import Objective

PhaseValues = tuple[tuple[str, Rate], ...]
"""Names of phases, and values."""


def value_for(phase: str, values: PhaseValues, objective: Objective, setting: str) -> float | None:
    """The value of a phase; none if it has none of its own.

    Raises:
        UserError: ``setting`` names a phase that the objective does not have.
    """
    names = [each.name for each in objective.phases()]
    for name, _ in values:
        if name not in names:
            raise UserError(f"{setting} names {name!r}: {type(objective).__name__} has the phases {', '.join(names)}")
    return dict(values).get(phase)
