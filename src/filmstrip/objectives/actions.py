"""Methods that learn from actions beside frames: their sizes come from the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError


class ActsOnStates(Protocol):
    """A configuration with the sizes of actions and states."""

    @property
    def action_dim(self) -> int:
        """Number of values of an action; zero until the data determine it."""
        ...

    @property
    def state_dim(self) -> int:
        """Number of values of the state beside a frame; zero for none."""
        ...


Config = TypeVar("Config", bound=ActsOnStates)


def with_sizes_of_actions(config: Config, info: DataInfo, learner: str) -> Config:
    """A configuration with the sizes of the data's actions and states, where they are not set.

    ``learner`` begins the message about videos without actions, such as "a policy learns from".

    Raises:
        UserError: the videos have no actions, or others than vectors, or their sizes are not those that are set.
    """
    if not isinstance(info, ClipInfo) or not info.action_dim:
        if config.action_dim:  # what batches lack is said before training
            return config
        raise UserError(
            f"{learner} actions that are vectors, and these videos have none: put NAME.actions.npz beside each "
            "NAME.mp4, with an array 'actions' of a row for each frame"
        )
    for name, value in (("action_dim", info.action_dim), ("state_dim", info.state_dim)):
        if getattr(config, name) not in (0, value):
            hint = " (--data.reads.states names their array)" if name == "state_dim" else ""
            raise UserError(f"objective.{name} is {getattr(config, name)}, and the videos have {value}{hint}")
    return cast("Config", replace(cast(Any, config), action_dim=info.action_dim, state_dim=info.state_dim))
