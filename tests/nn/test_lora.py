"""Low-rank adaptation: it starts as nothing, learns its products alone, and merges into plain layers."""

import pytest
import torch
from torch import nn

from filmstrip.nn.linear import Linear
from filmstrip.nn.lora import Lora, adapted_layers, is_adaptation, merge

PARTS = {"q": 6, "k": 2, "v": 2}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(5, 10)


def randomised(adapted):
    for name, parameter in adapted.named_parameters():
        if is_adaptation(name):
            nn.init.normal_(parameter)
    return adapted


def test_it_starts_as_the_layer_itself(layer):
    x = torch.randn(3, 5)
    expected = layer(x)
    assert torch.equal(Lora(layer, rank=2, alpha=4.0, parts=PARTS, adapted=("q", "v"))(x), expected)


def test_only_the_products_are_trained_and_the_weight_keeps_its_name(layer):
    adapted = Lora(layer, rank=2, alpha=4.0, parts=PARTS, adapted=("q", "v"))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {"lora_down_q", "lora_up_q", "lora_down_v", "lora_up_v"}
    assert {name for name in adapted.state_dict() if is_adaptation(name)} == trained
    assert adapted.weight is layer.weight and not layer.bias.requires_grad


def test_parts_have_products_of_their_own(layer):
    adapted = randomised(Lora(layer, rank=2, alpha=4.0, parts=PARTS, adapted=("q", "v")))
    x = torch.randn(3, 5)
    change = adapted(x) - nn.functional.linear(x, layer.weight, layer.bias)
    for name, rows in {"q": slice(0, 6), "v": slice(8, 10)}.items():
        down, up = adapted.product(name)
        torch.testing.assert_close(change[:, rows], 2 * x @ down.T @ up.T)
    assert change[:, 6:8].abs().max() < 1e-6


def test_merged_layers_are_plain_and_the_same_function(layer):
    module = nn.ModuleDict({"a": randomised(Lora(layer, rank=2, alpha=4.0)), "b": Linear(10, 3)})
    x = torch.randn(3, 5)
    expected = module["b"](module["a"](x))
    merge(module)
    assert type(module["a"]) is Linear and not list(adapted_layers(module))
    torch.testing.assert_close(module["b"](module["a"](x)), expected)


def test_dropout_is_of_the_products_input_alone(layer):
    adapted = Lora(layer, rank=2, alpha=4.0, dropout=0.9)
    x = torch.randn(3, 5)
    assert torch.equal(adapted.train()(x), adapted.eval()(x))
    randomised(adapted)
    assert not torch.equal(adapted.train()(x), adapted.eval()(x))


@pytest.mark.parametrize("settings", [{"parts": {"q": 3}}, {"parts": PARTS, "adapted": ()}, {"adapted": ("x",)}])
def test_parts_that_are_not_the_layers_are_refused(layer, settings):
    with pytest.raises(ValueError, match="are not 10 outputs"):
        Lora(layer, rank=2, alpha=4.0, **settings)
