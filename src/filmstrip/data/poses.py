"""Poses of a gripper: what it takes to go from one to the next."""

from __future__ import annotations

import numpy as np

POSE_DIM = 6
"""Numbers of a pose: x, y, z, and angles around these axes, one after the other, radians."""


def changes_of_poses(poses: np.ndarray) -> np.ndarray:
    """From each pose to the next, ``T-1 D`` of ``T D``: of the place and of all after the pose by subtraction, of the
    orientation as angles of the rotation that is applied to it (DROID, V-JEPA 2-AC)."""
    rotations = rotation_of(poses[:, 3:POSE_DIM])
    turned = rotations[1:] @ rotations[:-1].transpose(0, 2, 1)
    changes = np.diff(poses, axis=0)
    changes[:, 3:POSE_DIM] = angles_of(turned)
    return changes


def rotation_of(angles: np.ndarray) -> np.ndarray:
    """Rotations ``T 3 3`` around the fixed axes x, then y, then z, from their angles ``T 3``."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def angles_of(rotations: np.ndarray) -> np.ndarray:
    """The inverse of :func:`rotation_of`, the second angle between -90 and 90 degrees."""
    r = rotations
    return np.stack(
        [
            np.arctan2(r[:, 2, 1], r[:, 2, 2]),
            np.arcsin(np.clip(-r[:, 2, 0], -1, 1)),
            np.arctan2(r[:, 1, 0], r[:, 0, 0]),
        ],
        axis=1,
    )
