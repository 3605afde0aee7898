"""What a run folder says of the features that it was trained on, so that new videos can be encoded alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filmstrip.data.procedures.source import ProcedureSource
from filmstrip.errors import UserError
from filmstrip.files import write_json

FILE = "features.json"


@dataclass(frozen=True, kw_only=True)
class FeatureRecord:
    """What a run folder says of the features that it was trained on."""

    encoder: str | None = None
    """What encoded them: a run folder, ``hf:OWNER/NAME`` or a local folder; none where nobody said."""
    weights: str | None = None
    """The encoder's fingerprint."""
    level: str = "clip"
    clip_changes: str = "{}"
    """How clips differ from the encoder's own, as JSON."""
    clip_seconds: float
    """How long a clip was that was given, the median."""


def record_features(source: ProcedureSource, folder: Path) -> None:
    """Keep in the run folder what new videos must be encoded with."""
    known = {
        key: source.features.about[key] for key in ("encoder", "weights", "level") if key in source.features.about
    }
    values = asdict(FeatureRecord(clip_seconds=source.clip_seconds, **known))
    write_json(values, folder / FILE)


def recorded_features(folder: Path) -> FeatureRecord:
    """What :func:`record_features` kept.

    Raises:
        UserError: the run was not trained on procedures.
    """
    try:
        return FeatureRecord(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{folder} was not trained on procedures: it has no {FILE}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / FILE} cannot be read: {error}") from None
