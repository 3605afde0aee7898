import pytest
import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.inference import device_of, encoder_of, inference, modes_kept, on_device, stepwise


def test_modes_survive_an_error_inside():
    module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(RuntimeError), inference(module):
        assert torch.is_inference_mode_enabled() and not module[0].training
        raise RuntimeError
    assert not torch.is_inference_mode_enabled()
    assert [m.training for m in module.modules()] == [True, True, False]


def test_modes_kept_lets_the_body_choose():
    module = nn.Dropout().eval()
    with modes_kept(module):
        module.train()
        assert torch.is_grad_enabled()
    assert not module.training


def test_what_is_no_encoder_is_refused():
    holder = nn.Module()
    holder.encoder = nn.Linear(1, 1)  # callable, but without a width
    with pytest.raises(UserError, match="has no encoder"):
        encoder_of(holder)


def test_device_of_a_module_without_weights():
    assert device_of(nn.Identity()) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")


def test_what_comes_step_by_step_is_computed_in_inference_and_used_outside():
    module, seen = nn.Dropout(), []

    def frames():
        for _ in range(2):
            seen.append((torch.is_inference_mode_enabled(), module.training))
            yield torch.zeros(1)

    for _ in stepwise(module, frames()):
        assert not torch.is_inference_mode_enabled() and module.training
    assert seen == [(True, False)] * 2


def test_tensors_of_a_batch_are_moved_and_all_else_is_kept():
    moved = on_device({"video": torch.zeros(1), "name": ["a"]}, torch.device("meta"))
    assert moved["video"].device.type == "meta" and moved["name"] == ["a"]
