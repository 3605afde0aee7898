"""Attention along a ring of processes is attention at once: outputs, gradients of queries, keys and values."""

import os
from pathlib import Path

import pytest
import torch

from filmstrip.nn.blockwise import attend_in_blocks
from filmstrip.nn.ring_attention import own_positions, own_tokens, ring_attention
from started import run

WORKER = Path(__file__).with_name("ring_of_attention.py")


@pytest.mark.multiprocess
def test_rings_of_one_to_four_processes_have_what_one_process_has(monkeypatch, tmp_path):
    pytest.importorskip("ring_attention_pytorch")
    for folder in ("parity", "systems"):
        monkeypatch.setenv("PYTHONPATH", str(WORKER.parents[1] / folder), prepend=os.pathsep)
    run(WORKER, tmp_path / "store")


class Place:
    """A place in a ring, where nothing is sent."""

    def __init__(self, rank, size, striped=False):
        self.rank, self.size, self.striped = rank, size, striped


@pytest.mark.parametrize("striped", [False, True])
def test_every_token_belongs_to_one_process(striped):
    shares = [own_positions(12, rank, 3, striped=striped) for rank in range(3)]
    assert sorted(position for share in shares for position in share) == list(range(12))
    assert list(shares[1]) == ([1, 4, 7, 10] if striped else [4, 5, 6, 7])
    assert own_tokens(torch.arange(12)[None], Place(1, 3, striped))[0].tolist() == list(shares[1])


def test_a_ring_of_one_process_is_attention_in_blocks():
    torch.manual_seed(0)
    leaves = [torch.randn(1, 2, 12, 4, requires_grad=True) for _ in range(3)]
    both = [ring_attention(*leaves, Place(0, 1), block=5), attend_in_blocks(*leaves, block=5)]
    one, other = ([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)] for out in both)
    assert all(map(torch.equal, one, other))


def test_tokens_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(ValueError, match="13 tokens cannot be shared evenly among 4"):
        own_positions(13, 0, 4)
