import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from toys import Momentum, Network, Regression, differing, losses, train

from filmstrip.errors import UserError
from filmstrip.train.blocks import changed_blocks, find_blocks


def test_blocks_are_found_by_the_name_of_their_list():
    inner = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])})
    module = nn.Module()
    module.blocks = nn.ModuleList([inner])
    module.other = nn.ModuleList([nn.Linear(1, 1)])
    module.shared = nn.ModuleDict({"deep": nn.ModuleDict({"blocks": inner["blocks"]})})
    assert find_blocks(module) == [inner, *inner["blocks"]]


def test_recomputing_activations_changes_no_bit(tmp_path):
    def dropping():
        torch.manual_seed(0)
        return Regression(dropout=0.3)

    plain = train(tmp_path / "plain", dropping())
    recomputed = train(tmp_path / "recomputed", dropping(), checkpoint=True)
    assert losses(tmp_path / "plain") == losses(tmp_path / "recomputed")
    assert differing(plain.state_dict(), recomputed.state_dict()) == []


def test_recomputing_keeps_fewer_activations():
    def saved_numbers(checkpoint):
        objective, total = Regression(), 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        batch = {"video": torch.zeros(64, 2, 3, 4, 4, dtype=torch.uint8), "label": torch.zeros(64)}
        with (
            changed_blocks(objective, checkpoint=checkpoint, compile=False),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            objective(batch)
        return total

    assert saved_numbers(True) < saved_numbers(False)


def test_blocks_are_left_as_they_were():
    objective = Regression()
    names = list(objective.state_dict())
    with changed_blocks(objective, checkpoint=True, compile=True) as blocks:
        assert len(blocks) == 2 and list(objective.state_dict()) == names
        assert all("forward" in vars(block) and block._compiled_call_impl for block in blocks)
    assert all("forward" not in vars(block) and not block._compiled_call_impl for block in blocks)


@pytest.mark.parametrize(
    ("flags", "said"), [({"compile": True}, "train.compile"), ({"checkpoint": True}, "train.che")]
)
def test_a_network_without_blocks_says_so(tmp_path, flags, said):
    with pytest.raises(UserError, match=rf"{said}.*Momentum has none"):
        train(tmp_path, Momentum(), **flags)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
def test_compiling_leaves_the_losses_and_alike_blocks_share_code(tmp_path, checkpoint):
    class Deep(Regression):
        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            self.network = Network(depth=10)

    torch._dynamo.reset()
    counters.clear()
    train(tmp_path / "plain", Deep(), steps=4)
    assert not counters["stats"]
    train(tmp_path / "compiled", Deep(), steps=4, compile=True, checkpoint=checkpoint)
    assert 1 <= counters["stats"]["unique_graphs"] <= 2 and not counters["graph_break"]
    # Fused operations round otherwise, and Adam's first steps enlarge the difference.
    expected = losses(tmp_path / "plain")
    assert losses(tmp_path / "compiled") == pytest.approx(expected, rel=1e-3)
    assert losses(tmp_path / "compiled")[0] == pytest.approx(expected[0], rel=1e-6)
