"""Numbers of configurations: every field says what it may be, and what it may not be is refused in one sentence."""

import dataclasses
import importlib
import math
import pkgutil
import typing
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filmstrip
from filmstrip import evals, systems
from filmstrip.__main__ import COMMANDS, command_class, main
from filmstrip.bounds import (
    AnyNumber,
    Ascending,
    Bounds,
    Count,
    CountOrZero,
    EvenSize,
    NotEmpty,
    PositiveShare,
    Rate,
    Share,
    ShareBelowOne,
    check_numbers,
    check_options,
    hints_of,
)
from filmstrip.commands.command import Command
from filmstrip.commands.compare import Budget
from filmstrip.commands.data import Data
from filmstrip.commands.visualize import Ascent
from filmstrip.commands.work.generate import SamplingRequest
from filmstrip.data.config import Clip, Synthetic
from filmstrip.data.synthetic.motions import Motions
from filmstrip.data.tools.reencode import Recipe
from filmstrip.errors import UserError
from filmstrip.evals.knn import KNN
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.runs.config import Run, from_json, to_json
from filmstrip.runs.evaluation import Evaluation
from filmstrip.train.lengths import Steps


def unbounded(annotation):
    """Whether an annotation has a number in it of which nothing is said."""
    if typing.get_origin(annotation) is Annotated:
        plain, *marks = typing.get_args(annotation)
        if plain in (int, float):
            return not any(isinstance(mark, Bounds) for mark in marks)
        return unbounded(plain)
    if typing.get_origin(annotation) is typing.Literal:
        return False
    return annotation in (int, float) or any(map(unbounded, typing.get_args(annotation)))


def every_subclass(cls):
    return {cls, *(found for sub in cls.__subclasses__() for found in every_subclass(sub))}


def held(config):
    """The types of a configuration and of all that it holds."""
    if isinstance(config, tuple):
        return {cls for item in config for cls in held(item)}
    if not dataclasses.is_dataclass(config):
        return set()
    fields = (getattr(config, field.name) for field in dataclasses.fields(config))
    return {type(config), *(cls for value in fields for cls in held(value))}


def configurations():
    for module in pkgutil.walk_packages(filmstrip.__path__, "filmstrip."):
        if not module.name.startswith("filmstrip.__main__"):
            importlib.import_module(module.name)
    presets = (systems.find(f"{name}:{preset}") for name in systems.names() for preset in systems.presets(name))
    found = {Run, Budget, SamplingRequest, Ascent, Recipe, Sampling, *evals.protocols().values()}
    found |= every_subclass(ObjectiveConfig) | every_subclass(Synthetic) | every_subclass(Evaluation)
    for run in presets:
        found |= held(run)
    return sorted((cls for cls in found if cls.__module__.startswith("filmstrip.")), key=lambda cls: cls.__qualname__)


def test_every_number_of_a_configuration_says_what_it_may_be():
    without = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in configurations()
        for name, hint in hints_of(cls).items()
        if unbounded(hint)
    ]
    assert without == []


def commands():
    """The commands whose options are their own fields; those of the others are configurations."""
    classes = [*map(command_class, COMMANDS), *Data.actions.values()]
    return [cls for cls in classes if cls.parse.__func__ is Command.parse.__func__]


def test_every_number_of_a_command_says_what_it_may_be():
    assert len(commands()) > 12
    without = [
        f"{cls.__name__}.{name}" for cls in commands() for name, hint in hints_of(cls).items() if unbounded(hint)
    ]
    assert without == []


def test_the_walk_sees_a_number_without_bounds():
    assert unbounded(int) and unbounded(float | None) and unbounded(tuple[Count, int])
    assert not unbounded(Count | None) and not unbounded(tuple[Count, ...]) and not unbounded(str)


@pytest.mark.parametrize("name", systems.names())
def test_presets_are_within_their_bounds(name):
    for preset in systems.presets(name):
        check_numbers(systems.find(f"{name}:{preset}"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_frames": 0}, "num_frames is 0: expected a whole number of at least 1"),
        ({"stride": -2}, "stride is -2: expected a whole number of at least 1"),
        ({"num_frames": 2.5}, "num_frames is 2.5: expected a whole number of at least 1"),
        ({"num_frames": True}, "num_frames is True: expected a whole number of at least 1"),
        ({"num_frames": "8"}, "num_frames is '8': expected a whole number of at least 1"),
        ({"num_frames": None}, "num_frames is None: expected a whole number of at least 1"),
        ({"short_side": (8, 4)}, "short_side is (8, 4): expected a range, the lower end first"),
        ({"short_side": (0, 4)}, "short_side[0] is 0: expected a whole number of at least 1"),
        ({"short_side": (4,)}, "short_side is (4,): expected 2 numbers"),
        ({"area": (0.5, 1.5)}, "area[1] is 1.5: expected a number above 0 and up to 1"),
        ({"aspect": (math.nan, 1.0)}, "aspect[0] is nan: expected a number above 0"),
        ({"aspect": (1.0, math.inf)}, "aspect[1] is inf: expected a number above 0"),
    ],
)
def test_a_wrong_number_is_named_with_what_was_expected(change, expected):
    with pytest.raises(UserError) as refused:
        check_numbers(Clip(**change))
    assert str(refused.value) == expected


def test_from_python_from_json_and_inside_a_run_the_whole_path_is_named():
    run = systems.find("recognition.vit:tiny")
    clip = dataclasses.replace(run.data.clip, num_frames=0)
    with pytest.raises(UserError, match=r"^data\.clip\.num_frames is 0: expected a whole number of at least 1$"):
        dataclasses.replace(run, data=dataclasses.replace(run.data, clip=clip))
    with pytest.raises(UserError, match=r"^train\.length\.steps is 0: .*; train\.log_every is -1: "):
        dataclasses.replace(run, train=dataclasses.replace(run.train, length=Steps(0), log_every=-1))
    values = to_json(run)
    values["optim"]["lr"] = -1
    with pytest.raises(UserError, match=r"^optim\.lr is -1: expected a number above 0$"):
        from_json(values)
    values["optim"]["lr"] = 1
    assert from_json(values).optim.lr == 1.0


@pytest.mark.parametrize("cls", [Motions, Sampling, Budget, SamplingRequest, Ascent, Recipe, KNN])
def test_what_stands_alone_checks_itself(cls):
    name = next(name for name, hint in hints_of(cls).items() if not unbounded(hint) and "Bounds" in str(hint))
    with pytest.raises(UserError, match=f"^{name} is -1"):
        cls(**{name: -1})


@pytest.mark.parametrize(
    ("alias", "allowed", "refused"),
    [
        (Count, (1, 10**9), (0, -1, 1.0)),
        (CountOrZero, (0, 3), (-1,)),
        (EvenSize, (16, 64), (14, 17, 0)),
        (Rate, (1e-9, 3), (0, 0.0, -1.0)),
        (Share, (0, 1, 0.5), (-0.1, 1.1)),
        (ShareBelowOne, (0, 0.999), (1, 1.5, -0.1)),
        (PositiveShare, (1, 0.1), (0, 1.5)),
        (AnyNumber, (-5, 0, 2.5), (math.inf, math.nan, "1")),
        (Annotated[tuple[Count, ...], NotEmpty], ((1,), (2, 3)), ((), (0,))),
        (Annotated[tuple[Rate, Rate], Ascending], ((1, 1), (1, 2.5)), ((2, 1),)),
        (Count | None, (None, 1), (0, "1")),
        (tuple[Count, ...] | None, (None, (), (1,)), ((0,),)),
        (Count | str, ("all", 2), (0,)),
        (Count | tuple[Count, ...], (3, (), (1, 2)), (0, (0,), (1, 0.5))),
        (tuple[Count, Count] | Annotated[tuple[Share, ...], NotEmpty], ((2, 3), (0.5,)), ((), (2,), (0, 2))),
        (Count | Share, (3, 0.5, 0), (1.5, -1)),
    ],
)
def test_bounds(alias, allowed, refused):
    cls = dataclasses.make_dataclass("Config", [("n", alias)], frozen=True)
    for value in allowed:
        check_numbers(cls(value))
    for value in refused:
        with pytest.raises(UserError, match=r"^n"):
            check_numbers(cls(value))


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10), st.floats(-10, 10))
def test_bounds_hold_what_their_words_say(value, low, high):
    cls = dataclasses.make_dataclass("Config", [("n", Annotated[float, Bounds(min=low, max=high)])])
    if math.isfinite(value) and low <= value <= high:
        check_numbers(cls(value))
    else:
        with pytest.raises(UserError):
            check_numbers(cls(value))


def test_options_are_named_as_they_are_typed():
    @dataclasses.dataclass(frozen=True)
    class Options:
        num_clips: Count
        share: Share | None = None

    with pytest.raises(UserError, match=r"^--num-clips is 0: expected a whole number of at least 1; --share is 2"):
        check_options(Options(0, 2))
    check_options(Options(2))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show recognition.vit --data.clip.num-frames 0", "data.clip.num_frames is 0"),
        ("show recognition.vit --data.clip.stride 0", "data.clip.stride is 0"),
        ("train recognition.vit --optim.lr -1", "optim.lr is -1: expected a number above 0"),
        ("train recognition.vit --optim.lr nan", "optim.lr is nan"),
        ("train recognition.vit --train.steps -5", "train.length.steps is -5"),
        ("bench recognition.vit --data.batch-size 0", "data.batch_size is 0"),
        (
            "show recognition.vit --objective.dropout 1.5",
            "objective.dropout is 1.5: expected a number from 0 to below 1",
        ),
        ("show recognition.vit --train.clip-grad inf", "train.clip_grad is inf: expected a number above 0"),
        ("eval run --protocol knn --k 0", "k is 0"),
        ("predict run a.mp4 --top-k -1", "--top-k is -1"),
        ("predict run a.mp4 --clips 0", "--clips is 0"),
        ("forecast run a.mp4 --clip-seconds nan", "--clip-seconds is nan"),
        ("encode run a.mp4 --out out --batch-size 0", "--batch-size is 0"),
        ("visualize run --class 1 --fps 0", "--fps is 0"),
        ("detect run a.mp4 --boxes b.csv --min-iou 2", "--min-iou is 2"),
        ("compare --steps 0", "steps is 0"),
        ("data prepare x --out y --short-side 0", "--short-side is 0"),
        ("data prepare x --out y --crf 99", "--crf is 99: expected a whole number from 0 to 51"),
        ("data check x --workers 0", "--workers is 0"),
        ("data make motions --size 7", "size is 7: expected a whole number of at least 16 that is a multiple of 2"),
    ],
)
def test_the_command_line_refuses_wrong_numbers_with_code_2(capsys, words, expected):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert expected in err and err.startswith("filmstrip: ") and len(err.splitlines()) == 1
    assert not out
