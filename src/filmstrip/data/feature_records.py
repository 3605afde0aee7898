"""What a run folder records of the features that it was trained on, so that new videos can be encoded alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from filmstrip.errors import UserError

_KNOWN = ("encoder", "weights", "level", "clip_changes")


@dataclass(frozen=True, kw_only=True)
class FeatureRecord:
    """How features were made."""

    encoder: str | None = None
    """Encoder of the features: a run folder, ``hf:OWNER/NAME`` or a local folder; None if unknown."""
    weights: str | None = None
    """Fingerprint of the encoder's weights."""
    level: str = "clip"
    """Level of the features, as of ``filmstrip encode``."""
    clip_changes: str = "{}"
    """Differences of the clips from the encoder's own, as JSON."""


@dataclass(frozen=True, kw_only=True)
class SequenceRecord(FeatureRecord):
    """How features along whole videos were made."""

    step_seconds: float
    """Median spacing of the features, in seconds."""
    reach_seconds: float
    """Half the median duration of a clip, in seconds."""


class Spaced(Protocol):
    """Features along a video, evenly spaced."""

    @property
    def step(self) -> float:
        """Spacing of the features, in seconds."""
        ...

    @property
    def reach(self) -> float:
        """Half the duration of video that a feature covers, in seconds."""
        ...


AnyRecord = TypeVar("AnyRecord", bound=FeatureRecord)


def known_of_sequences(features: object, some: Iterable[Spaced]) -> dict[str, Any]:
    """The fields of a :class:`SequenceRecord`: what is known of how ``features`` were made, and the spacing of some
    of them."""
    about = getattr(features, "about", {})
    step, reach = (float(np.median(part)) for part in zip(*((each.step, each.reach) for each in some)))
    known = {key: about[key] for key in _KNOWN if key in about}
    return known | {"step_seconds": step, "reach_seconds": reach}


def read_feature_record(kind: type[AnyRecord], path: Path, missing: str) -> AnyRecord:
    """The record in a file.

    Raises:
        UserError: it cannot be read, or is not there: the message is ``missing``.
    """
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(missing) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
