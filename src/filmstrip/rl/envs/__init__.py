"""Environments by name: own ones drawn in numpy, those of Gymnasium, ALE, dm_control and minigrid, and anybody's."""

from filmstrip.rl.envs.environment import Environment, EnvironmentConfig, Step
from filmstrip.rl.envs.names import OWN, named

__all__ = ["OWN", "Environment", "EnvironmentConfig", "Step", "named"]
