"""Processes arranged along data and context: who reads what, and what the loop makes of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_parallel import trace
from test_ring_attention import Place
from torch import nn

from filmstrip.__main__ import main
from filmstrip.data.reading.order import Portion, Share
from filmstrip.distributed import mesh as mesh_module
from filmstrip.distributed.mesh import Axis, Mesh, share_context
from filmstrip.errors import UserError
from filmstrip.nn.block import Block
from started import run

WORKER = Path(__file__).parents[1] / "train" / "worker.py"


def as_process(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def draws(mesh):
    share = Share(seed=3, portions=(Portion(50),), batch_size=8, rank=mesh.data.rank, world=mesh.data.size)
    batches = share.micro_batches(0)
    return [next(batches) for _ in range(3)]


def test_one_process_is_a_mesh_of_one():
    assert Mesh.of_processes() == Mesh() == Mesh(Axis(0, 1), Axis(0, 1))
    assert Mesh().connect(torch.device("cpu")) is None


def test_neighbours_share_the_context(monkeypatch):
    found = []
    for rank in range(4):
        as_process(monkeypatch, rank, 4)
        found.append(Mesh.of_processes(2))
    assert [mesh.data for mesh in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert [mesh.context for mesh in found] == [(0, 2), (1, 2), (0, 2), (1, 2)]
    first, same, other, _ = map(draws, found)
    assert first == same
    positions = [[draw.position for draw in batch] for batch in (first[0], other[0])]
    assert positions == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_without_context_a_process_has_the_share_of_its_rank(monkeypatch):
    as_process(monkeypatch, 2, 3)
    assert Mesh.of_processes() == Mesh(data=Axis(2, 3), context=Axis(0, 1))


def test_processes_that_do_not_divide_are_refused(monkeypatch):
    as_process(monkeypatch, 0, 4)
    with pytest.raises(UserError, match=r"train\.context 3 .* this run has 4"):
        Mesh.of_processes(3)


def test_the_command_line_refuses_a_context_without_processes(tmp_path, capsys):
    words = ["recognition.vit:tiny", "--train.steps", "1", "--train.context", "2", "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "train.context 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Connected:
    """What torch's mesh of processes is asked for."""

    def get_group(self, name):
        return name


class InRows(nn.Linear):
    """A loss that compares the rows of all processes."""

    def share_rows(self, pass_on, processes, rank):
        pass


class Windowed(Block):
    """A block that attends otherwise."""

    def forward(self, x):
        return super().forward(x.flip(1))


def test_networks_whose_tokens_cannot_be_shared_are_refused(monkeypatch, caplog):
    monkeypatch.setattr(mesh_module, "Ring", lambda group, striped: Place(0, 2))
    mesh = Mesh(context=Axis(0, 2))
    with pytest.raises(UserError, match=r"Linear cannot be shared \(no blocks\).*leave train\.context at 1"):
        share_context(nn.Linear(2, 2), mesh, Connected())
    odd = Windowed(4, 2)
    with pytest.raises(UserError, match=r"cannot be shared \(Windowed\).*language\.\*.*VideoMAE"):
        share_context(odd, mesh, Connected(), [odd])
    with pytest.raises(UserError, match=r"InRows compares a clip with those of all processes"):
        share_context(InRows(2, 2), mesh, Connected(), [Block(4, 2)])
    compiled = Block(4, 2)
    compiled._compiled_call_impl = compiled.forward  # as after compile(), which takes long
    with pytest.raises(UserError, match=r"which train\.compile cannot compile"):
        share_context(nn.Linear(2, 2), mesh, Connected(), [compiled])
    assert not caplog.records
    share_context(odd, mesh, Connected(), [odd, Block(4, 2)])
    assert "of 2 blocks processes share the tokens of 1: Windowed" in caplog.text
    share_context(nn.Linear(2, 2), Mesh(), None)


def test_rows_of_fewer_tokens_than_processes_are_refused_and_evaluation_is_not_shared():
    block = Block(4, 2)
    assert block.share_tokens(Place(0, 3))
    with pytest.raises(UserError, match="3 processes cannot share rows of 2 tokens, as this Block is given"):
        block(torch.zeros(1, 2, 4))
    assert block.eval()(torch.zeros(1, 2, 4)).shape == (1, 2, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training by one process, by two of one context, by two of two, and by four of two contexts."""

    def train(world, context):
        folder = tmp_path_factory.mktemp(f"{world}-{context}")
        spec = {"folder": str(folder / "run"), "objective": "Shared", "context": context}
        run(WORKER, json.dumps([{**spec, "note_names": str(folder / "names")}]), processes=world)
        return folder

    return {(world, context): train(world, context) for world, context in ((1, 1), (2, 1), (2, 2), (4, 2))}


def names(folder, world):
    return [json.loads((folder / f"names.{rank}").read_text()) for rank in range(world)]


@pytest.mark.multiprocess
def test_processes_of_one_context_read_the_same_batches(trained):
    (alone,) = names(trained[1, 1], 1)
    assert names(trained[2, 2], 2) == [alone, alone]
    first, same, other, same_as_other = names(trained[4, 2], 4)
    assert first == same and other == same_as_other
    assert [a + b for a, b in zip(first, other)] == alone
    assert names(trained[2, 1], 2) == [first, other]


@pytest.mark.multiprocess
@pytest.mark.parametrize("arrangement", [(2, 1), (2, 2), (4, 2)])
def test_the_training_is_that_of_one_process(trained, arrangement):
    expected, got = trace(trained[1, 1] / "run"), trace(trained[arrangement] / "run")
    assert len(expected["loss"]) == 6 and expected.keys() == got.keys()
    for term, values in expected.items():
        assert got[term] == pytest.approx(values, rel=1e-4, abs=1e-6), term
    weights = (load_file(trained[which] / "run" / "weights.safetensors") for which in ((1, 1), arrangement))
    alone, together = (found["layer.weight"].flatten().tolist() for found in weights)
    assert together == pytest.approx(alone, rel=1e-2, abs=1e-4)
