import pytest
import torch
import torch.nn.functional as F
from torch import nn

from filmstrip.data.config import DataInfo
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Classifier, Features, Grid


class MeanColour(nn.Module):
    """An encoder whose one token is the clip's mean colour."""

    width = 3
    depth = 0

    def forward(self, video, layers=False):
        return Features(video.float().mean(dim=(1, 3, 4))[:, None], Grid(1, 1, 1))

    def depth_of(self, name):
        return 0


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return Classification(MeanColour(), ClassificationConfig(num_classes=4))


VIDEO = torch.rand(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_loss_is_cross_entropy_of_the_linear_head(objective):
    label = torch.tensor([1, 3])
    loss = objective({"video": VIDEO, "label": label})
    logits = objective.head(VIDEO.mean(dim=(1, 3, 4)))
    torch.testing.assert_close(objective.classify(VIDEO), logits)
    torch.testing.assert_close(loss.total, -logits.log_softmax(1)[range(2), label].mean())
    assert isinstance(objective, Classifier)


def test_top1_counts_the_right_ones(objective):
    guess = objective.classify(VIDEO).argmax(1)
    right_and_wrong = torch.stack([guess[0], (guess[1] + 1) % 4])
    assert objective({"video": VIDEO, "label": right_and_wrong}).metrics["top1"] == 0.5
    assert objective({"video": VIDEO, "label": guess}).metrics["top1"] == 1


def test_mixed_labels_are_probabilities(objective):
    label = torch.tensor([1, 3])
    hard = objective({"video": VIDEO, "label": label}).total
    soft = objective({"video": VIDEO, "label": F.one_hot(label, 4).float()}).total
    torch.testing.assert_close(hard, soft)


def test_smoothing_shares_out_some_of_the_truth():
    torch.manual_seed(0)
    smooth = Classification(MeanColour(), ClassificationConfig(num_classes=4, label_smoothing=0.2))
    log_p = smooth.classify(VIDEO).log_softmax(1)
    want = -(0.8 * log_p[range(2), [1, 3]] + 0.2 * log_p.mean(1)).mean()
    torch.testing.assert_close(smooth({"video": VIDEO, "label": torch.tensor([1, 3])}).total, want)


def test_layers_for_decay_end_with_the_head():
    architecture = ViTArchitecture(width=8, depth=2, num_heads=2, num_frames=2, size=16, patch_size=(2, 16, 16))
    encoder = ViT(architecture, final_norm=False)
    objective = Classification(encoder, ClassificationConfig(num_classes=4), norm=True)
    (phase,) = objective.phases()
    depth = {name: group.depth for group in objective.param_groups(phase) for name in group.names}
    assert depth["encoder.embed.proj.weight"] == 0
    assert depth["encoder.blocks.1.norm1.weight"] == 2
    assert depth["head.weight"] == depth["norm.weight"] == 3
    decay = {name: group.decay for group in objective.param_groups(phase) for name in group.names}
    assert decay["head.weight"] and not decay["head.bias"] and not decay["encoder.blocks.0.attention.q_bias"]


def test_number_of_classes_comes_from_the_data_if_it_has_any():
    config = ClassificationConfig(num_classes=400)
    info = DataInfo(classes=("a", "b"), num_train=2, directional=False)
    assert config.bind(info).num_classes == 2
    assert config.bind(DataInfo(classes=(), num_train=2, directional=False)) == config
