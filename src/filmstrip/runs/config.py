"""A run, complete: data, objective, optimiser, loop and evaluations, as plain frozen dataclasses.

Configurations are written to ``config.json`` and read back from it. Each dataclass is tagged with its import path,
and reading imports from ``filmstrip`` only, and from packages that the user has allowed in this process
(:mod:`filmstrip.runs.outside`): a run folder alone cannot bring in anybody else's code.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filmstrip.bounds import Seed, check_numbers
from filmstrip.data.config import Clip, Data, DataInfo
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.objectives.config import LowRank, ObjectiveConfig
from filmstrip.runs.evaluation import Evaluation
from filmstrip.runs.outside import import_allowed
from filmstrip.settings import FREE, Change, change_of
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW, Muon


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training run is made of. Systems offer complete ones as presets."""

    data: Data
    """What is read, how clips are cut from it, and how they are augmented."""
    objective: ObjectiveConfig
    """The method: its model and its loss."""
    optim: AdamW | SGD | Muon = field(default_factory=AdamW)
    """Optimiser and schedule."""
    train: Loop
    """How long, in which precision, what is logged and saved."""
    evals: tuple[Evaluation, ...] = field(default=(), metadata=FREE)
    """Protocols to run when training ends, and every ``train.eval_every`` steps."""
    init: str | None = None
    """Weights to start from: a run folder; ``hf:OWNER/NAME``, or a local folder in that layout; or a file of weights
    (safetensors, or a state that torch.save wrote) by the names of the method's authors. A classifier starts its
    encoder, VideoMAE its decoder too where the source has one, a forecaster its predictor; all others start whole,
    from a run of their own kind or their authors' file. On the command line a folder in the Hub's layout also decides
    the network's sizes."""
    lora: LowRank | None = None
    """Low-rank adaptation of the encoder (of generation.vdt: of its transformer), in place of training its weights,
    from where ``init`` leaves them; on the command line ``--lora``, or with its settings ``--lora.rank 16``. None
    trains the encoder."""
    seed: Seed = 0
    """Decides initial weights, order of the data, clips, augmentations and masks."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def bound(self, info: DataInfo) -> Run:
        """This run with its objective told about the data."""
        return dataclasses.replace(self, objective=self.objective.bind(info))

    def on_clip(self, clip: Clip) -> Run:
        """This run on clips that are cut in another way, with its objective made for them."""
        data = dataclasses.replace(self.data, clip=clip)
        return dataclasses.replace(self, data=data, objective=self.objective.for_clip(clip))


class Difference(NamedTuple):
    """A setting with two values."""

    setting: str
    """Its dotted name."""
    here: Any
    there: Any
    change: Change
    """Whether a run goes on when it has changed."""

    def __str__(self) -> str:
        return f"{self.setting}: {_shown(self.here)} here, {_shown(self.there)} there"


def differences(here: Any, there: Any, name: str = "", change: Change = "never") -> Iterator[Difference]:
    """The settings in which two configurations differ, in the order in which they are declared."""
    # A length differs as a whole: it may be in other units.
    if type(here) is type(there) and dataclasses.is_dataclass(here) and change != "longer":
        for setting in dataclasses.fields(here):
            own = change_of(setting)
            values = getattr(here, setting.name), getattr(there, setting.name)
            dotted = f"{name}.{setting.name}" if name else setting.name
            yield from differences(*values, dotted, change if own == "never" else own)
    elif here != there:
        yield Difference(name, here, there, change)


def _shown(value: Any, most: int = 60) -> str:
    """A value of a setting in a sentence; of a part of another kind, its kind."""
    if isinstance(value, (Steps, Epochs)):
        return str(value)
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    text = json.dumps(to_json(value))
    return text if len(text) <= most else f"{text[:most]}..."


def to_json(config: Any) -> Any:
    """A configuration as JSON values; dataclasses carry their import path under ``"type"``."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        cls = type(config)
        values = {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": f"{cls.__module__}:{cls.__qualname__}", **values}
    if isinstance(config, (tuple, list)):
        return [to_json(item) for item in config]
    if isinstance(config, dict):
        return {str(key): to_json(value) for key, value in config.items()}
    if isinstance(config, enum.Enum):
        return config.name
    if isinstance(config, Path):
        return str(config)
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise TypeError(f"a configuration cannot hold {config!r} ({type(config).__name__})")


def from_json(values: Any, annotation: Any = Any) -> Any:
    """The configuration that :func:`to_json` wrote.

    Raises:
        UserError: a type that is not a dataclass of ``filmstrip`` or of an allowed package, or a field that the type
        does not have.
    """
    if isinstance(values, dict) and "type" in values:
        cls = _config_class(values["type"])
        hints = typing.get_type_hints(cls)
        unknown = values.keys() - hints.keys() - {"type"}
        if unknown:
            raise UserError(
                f"{values['type']} has no field {', '.join(sorted(unknown))}: was the configuration written by "
                "another version of filmstrip?"
            )
        return cls(**{k: from_json(v, hints[k]) for k, v in values.items() if k != "type"})
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        fitting = [a for a in args if _fits(values, a)]
        return from_json(values, fitting[0]) if fitting else values
    if isinstance(values, list):
        inner = args[0] if args else Any
        items = [from_json(v, inner if len(args) < 2 or args[1] is ... else args[i]) for i, v in enumerate(values)]
        return items if origin is list else tuple(items)
    if isinstance(values, dict):
        return {k: from_json(v, args[1] if len(args) == 2 else Any) for k, v in values.items()}
    if annotation is Path and isinstance(values, str):
        return Path(values)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return annotation[values]
    if annotation is float and isinstance(values, int):
        return float(values)
    return values


def _config_class(tag: str) -> type:
    module, _, name = tag.partition(":")
    try:
        cls = getattr(import_allowed(module), name)
    except (ImportError, AttributeError) as error:
        package = module.partition(".")[0]
        raise UserError(
            f"a configuration names {tag}, which this version of {package} does not have: another version wrote it"
        ) from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"a configuration names {tag}, which is not a configuration: refused")
    return cls


def _fits(values: Any, annotation: Any) -> bool:
    """Whether a JSON value can stand for one member of a union."""
    origin = typing.get_origin(annotation) or annotation
    if values is None or annotation is type(None):
        return values is None and annotation is type(None)
    if isinstance(values, list):
        return origin in (tuple, list)
    if isinstance(values, str):
        return origin in (str, Path, typing.Literal)
    return isinstance(origin, type) and isinstance(values, (origin, int) if origin is float else origin)


def write_config(run: Run, path: Path) -> None:
    """Write a run's configuration as JSON, at once: another process never sees half of it."""
    write_json(to_json(run), path)


def read_config(path: Path) -> Run:
    """Read a run's configuration.

    Raises:
        UserError: the file is missing or damaged, is not JSON, or does not describe a run.
    """
    try:
        run = from_json(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path.parent} is not a run folder: it has no {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged or cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(run, Run):
        raise UserError(f"{path} does not describe a run")
    return run
