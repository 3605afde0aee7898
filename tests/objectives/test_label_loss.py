"""The loss of labels: weights of classes, several classes, numbers."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.objectives.labels import LabelLoss, LabelsConfig, balanced_weights, last_layer


def info(**changes):
    return DataInfo(**{"classes": ("a", "b", "c"), "num_train": 100, "directional": False, **changes})


def test_balanced_weights_give_every_class_the_same_say():
    weights = torch.tensor(balanced_weights(info(class_counts=(90, 9, 1)), 1.0), dtype=torch.float64)
    total = weights * torch.tensor([90.0, 9.0, 1.0])
    assert total.tolist() == pytest.approx([100 / 3] * 3, rel=1e-4)
    assert balanced_weights(info(class_counts=(90, 10, 0)), 1.0)[2] == 0
    assert balanced_weights(info(class_counts=(90, 9, 1)), 0.0) == (1.0, 1.0, 1.0)
    assert balanced_weights(info(class_counts=(50, 20, 10), labels="several"), 1.0) == (1.0, 4.0, 9.0)


def test_the_data_complete_the_configuration():
    config = LabelsConfig(num_classes=9, balance=0.5).bind(info(class_counts=(64, 32, 4)))
    assert config.num_classes == 3 and len(config.class_weights) == 3 and config.labels == "class"
    numbers = LabelsConfig(num_classes=9).bind(info(labels="number", number_means=(1.0,) * 3, number_stds=(2.0,) * 3))
    assert (numbers.labels, numbers.number_stds) == ("number", (2.0,) * 3)
    with pytest.raises(UserError, match="are for classes, and the labels are numbers"):
        LabelsConfig(num_classes=9, balance=1.0).bind(info(labels="number"))
    with pytest.raises(UserError, match="class_weights are 2, and there are 3 classes"):
        LabelLoss(LabelsConfig(num_classes=3, class_weights=(1.0, 2.0)))


def test_weighted_cross_entropy_averages_over_rows(seed=0):
    torch.manual_seed(seed)
    weights = (0.5, 1.0, 4.0)
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    loss = LabelLoss(LabelsConfig(num_classes=3, class_weights=weights))
    each = F.cross_entropy(logits, label, reduction="none") * torch.tensor(weights)[label]
    assert loss(logits, label).total == pytest.approx(each.mean().item())
    halves = [loss(logits[:3], label[:3]).total, loss(logits[3:], label[3:]).total]
    assert torch.stack(halves).mean().item() == pytest.approx(each.mean().item(), rel=1e-6)
    mixed = F.one_hot(label, 3).float()
    assert loss(logits, mixed).total == pytest.approx(each.mean().item(), rel=1e-6)


def test_several_classes_are_learnt_each_on_its_own():
    logits, label = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    loss = LabelLoss(LabelsConfig(num_classes=3, labels="several"))(logits, label)
    expected = -F.logsigmoid(torch.tensor([2.0, 1.0, 0.5])).mean()
    assert loss.total.item() == pytest.approx(expected.item()) and loss.metrics["hit1"] == 1
    weighted = LabelLoss(LabelsConfig(num_classes=3, labels="several", class_weights=(3.0, 1.0, 1.0)))(logits, label)
    assert weighted.total - loss.total == pytest.approx(-2 * F.logsigmoid(torch.tensor(2.0)).item() / 3)


def test_numbers_are_predicted_in_their_own_units():
    config = LabelsConfig(num_classes=2, labels="number", number_means=(100.0, -1.0), number_stds=(10.0, 0.5))
    layer = last_layer(4, config)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    outputs = layer(torch.randn(3, 4))
    assert outputs.tolist() == [[100.0, -1.0]] * 3 and set(layer.state_dict()) == {"weight", "bias"}
    loss = LabelLoss(config)(outputs, torch.tensor([[110.0, -1.0]] * 3))
    assert (loss.total.item(), loss.metrics["mae"].item()) == (0.5, 5.0)
