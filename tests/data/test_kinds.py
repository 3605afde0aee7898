"""Kinds of samples declare what their batches hold, and what they draw, stack and refuse agrees with that."""

from dataclasses import replace

import pytest
import torch

from filmstrip.data import kinds
from filmstrip.data.config import Data
from filmstrip.data.kinds.actors import ActorClips
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.kind import check_requires
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.kinds.specification import COMMON, Form, Key, Specification, of
from filmstrip.errors import UserError

SIZES = {"B": 3, "T": 48, "C": 3, "H": 16, "W": 24, "K": 6, "S": 4, "N": 5, "D": 8, "M": 2}
SPECIFICATION = Specification(
    {
        "boxes": of("B M 4", torch.float32, "where", padding=0),
        "kinds": of("B M", torch.int64, "which", padding=-1),
        "there": of("B M", torch.bool, "whether", padding=0),
        "moment": of("B", torch.float64, "when", padding=0),
        "action": Key("what", (Form("B T A", torch.float32), Form("B T", torch.int64)), when="some"),
        **COMMON,
    }
)


def row(count):
    return {
        "boxes": torch.full((count, 4), 0.5),
        "kinds": torch.full((count,), count),
        "there": torch.ones(count, dtype=torch.bool),
        "moment": torch.tensor(float(count), dtype=torch.float64),
    }


def with_common(batch, rows):
    drawn = Clips.example({**SIZES, "B": rows}, torch.Generator().manual_seed(0))
    return batch | {key: drawn[key] for key in COMMON}


def test_rows_are_stacked_with_padding_up_to_the_largest():
    batch = SPECIFICATION.collate([row(0), row(2), row(1)])
    assert batch["kinds"].tolist() == [[-1, -1], [2, 2], [1, -1]]
    assert batch["there"].tolist() == [[False, False], [True, True], [True, False]]
    assert batch["boxes"].shape == (3, 2, 4) and not batch["boxes"][2, 1].any()
    assert batch["moment"].tolist() == [0, 2, 1]
    assert list(SPECIFICATION.faults(with_common(batch, 3))) == []
    whole = Specification({name: replace(key, padding=None) for name, key in SPECIFICATION.keys.items()})
    with pytest.raises(RuntimeError, match="equal size"):
        whole.collate([row(0), row(2)])


def test_a_batch_that_departs_from_what_is_declared_is_found_out():
    batch = with_common(SPECIFICATION.collate([row(1), row(1)]), 2)
    assert list(SPECIFICATION.faults({key: value for key, value in batch.items() if key != "kinds"})) == [
        "kinds is missing"
    ]
    assert list(SPECIFICATION.faults({**batch, "more": batch["kinds"]})) == ["more is not declared"]
    for name, wrong in {
        "kinds": torch.zeros(2, 3, dtype=torch.int64),
        "boxes": batch["boxes"].double(),
        "there": batch["there"][:, 0],
        "name": ["a", 1],
    }.items():
        (fault,) = SPECIFICATION.faults({**batch, name: wrong})
        assert fault.startswith(f"{name} is ")


def test_the_blank_batch_is_padding_in_the_first_form_whose_sizes_are_known():
    blank = SPECIFICATION.blank({"B": 2, "M": 3, "T": 4, "A": 0})
    assert list(SPECIFICATION.faults(blank)) == []
    assert (blank["kinds"] == -1).all() and blank["action"].dtype == torch.int64
    assert SPECIFICATION.blank({"B": 2, "M": 3, "T": 4, "A": 5})["action"].shape == (2, 4, 5)
    assert "action" not in SPECIFICATION.blank({"B": 2, "M": 3})


@pytest.mark.parametrize("name", kinds.known())
def test_examples_are_as_declared_and_the_same_whenever_they_are_drawn(name):
    kind = kinds.named(name)
    first, again = (kind.example(SIZES, torch.Generator().manual_seed(1)) for _ in range(2))
    assert list(kind.specification.faults(first)) == []
    assert all(torch.equal(first[key], again[key]) for key in first if key != "name")
    info = kind.example_info(SIZES, classes=("a",), num_train=1, directional=False)
    assert info.num_train == 1
    told = kind().told_sizes(Data(), info)
    assert list(kind.specification.faults(kind.example({**told, "B": 2}, torch.Generator()))) == []
    other = kind.example(SIZES, torch.Generator().manual_seed(2))
    assert any(not torch.equal(first[key], other[key]) for key in first.keys() - COMMON.keys())


@pytest.mark.parametrize("name", kinds.known())
def test_kinds_have_what_the_others_have(name):
    kind = kinds.named(name)
    assert kind.specification.keys.keys() >= COMMON.keys()
    with pytest.raises(UserError):
        Data(reads=kind()).reads.open(Data(reads=kind()))


def test_a_kind_that_is_not_there_is_named_with_the_nearest():
    assert kinds.named("actors") is ActorClips
    with pytest.raises(UserError, match="did you mean 'procedures'"):
        kinds.named("procedure")


def test_what_batches_lack_is_said_before_any_is_read():
    check_requires("Model", ("video", "label"), Clips.specification.keys, "it")
    with pytest.raises(UserError, match=r"Model needs 'video' in its batches, and it provides 'features', "):
        check_requires("Model", ("video", "seed"), Procedures.specification.keys, "it")
