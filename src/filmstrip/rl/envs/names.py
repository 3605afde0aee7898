"""From a name to an environment of Gymnasium."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

import gymnasium

from filmstrip.errors import UserError
from filmstrip.rl.envs.own import OwnEnvironment
from filmstrip.rl.envs.pick import Pick
from filmstrip.rl.envs.point import Orbit, Point
from filmstrip.rl.envs.pong import Pong
from filmstrip.rl.envs.push import Push
from filmstrip.rl.envs.reach import Reach

OWN: dict[str, Callable[..., OwnEnvironment]] = {
    "point": Point,
    "orbit": Orbit,
    "reach": Reach,
    "pick": Pick,
    "pong": Pong,
    "push": Push,
}
"""Environments of this package; ``reach/TASK/LOOK`` and ``pick/TASK/LOOK`` name a task (right, down, left, up) and a
look (steel, orange)."""
PACKAGES = {
    "ALE": ("ale_py", "ale-py", "Atari games: ALE/Pong-v5"),
    "MiniGrid": ("minigrid", "minigrid", "grid worlds: MiniGrid-Empty-8x8-v0"),
    "dm_control": ("dm_control", "'dm_control' 'mujoco<4'", "the DeepMind Control Suite: dm_control/walker-walk"),
    "rlbench": ("rlbench", "RLBench (with CoppeliaSim, by hand: no package registry has it)", "robots"),
}
"""Beginnings of names that need a package: its module, how it is installed, and what it has."""


def named(name: str, *, size: int, import_module: Callable[[str], Any] | None = None) -> gymnasium.Env[Any, Any]:
    """The environment of a name, with pictures as ``rgb_array``.

    A name is one of :data:`OWN`; ``dm_control/DOMAIN-TASK``; an id of Gymnasium (``ALE/Pong-v5``,
    ``MiniGrid-Empty-8x8-v0``, ``CartPole-v1``); or ``module:Class`` of a person's own, a class of
    :class:`gymnasium.Env` or a function that returns one, which ``import_module`` imports where the person allowed
    it.

    Raises:
        UserError: there is none of this name, it needs a package that is not installed, or it cannot be made.
    """
    own, *options = name.split("/")
    if own in OWN:
        arm = own in ("reach", "pick")
        keys = ("task", "look")[: len(options)] if arm else ()
        if len(options) != len(keys):
            hint = f": it is {own}/TASK/LOOK" if arm else f": {own} has no variants"
            raise UserError(f"there is no environment {name!r}{hint}")
        return OWN[own](size=size, **dict(zip(keys, options)))
    if ":" in name:
        return _own_class(name, import_module)
    family = next((key for key in PACKAGES if name.startswith(key)), None)
    if family is not None:
        module, package, _ = PACKAGES[family]
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"{name} needs a package ({error}): pip install {package}") from None
        if family == "dm_control":
            from filmstrip.rl.envs.control_suite import ControlSuite

            return ControlSuite(name, size)
        if family == "rlbench":
            raise UserError(
                f"{name}: environments of RLBench are made by a class of your own (--env my_module:MyTask), which "
                "was never tried here, for its simulator cannot be installed from a registry"
            )
        if family == "ALE":
            gymnasium.register_envs(library)
            return _made(name, frameskip=1, repeat_action_probability=0.25, full_action_space=True)
        gymnasium.register_envs(library)
    return _made(name)


def _made(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(name, render_mode="rgb_array", **options)
    except gymnasium.error.NameNotFound as error:
        close = difflib.get_close_matches(name, [*OWN, *gymnasium.registry], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"own ones are {', '.join(OWN)}"
        raise UserError(f"there is no environment {name!r} ({error}); {hint}") from None
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be made with pictures: {type(error).__name__}: {error}") from None


def _own_class(name: str, import_module: Callable[[str], Any] | None) -> gymnasium.Env[Any, Any]:
    module, _, attribute = name.partition(":")
    if import_module is None:
        raise UserError(
            f"{name} is code of your own, and is imported only where you name it: give --env {name} on the "
            "command line"
        )
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} cannot be imported, here or from the current folder: {error}") from None
    try:
        environment = made(render_mode="rgb_array")
    except TypeError as error:
        raise UserError(f"{name} takes no render_mode='rgb_array', or needs other arguments: {error}") from None
    if not isinstance(environment, gymnasium.Env):
        raise UserError(f"{name} gives {type(environment).__name__}, and an environment of Gymnasium is expected")
    return environment
