"""Random tiny VideoMAE models of ``transformers``, the reference that ours must agree with."""

import pytest
import torch

TINY = dict(
    image_size=32,
    patch_size=8,
    num_frames=4,
    tubelet_size=2,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=96,
)


@pytest.fixture
def reference():
    """Builds a reference model of a class by name, with weights large enough that every part matters."""
    transformers = pytest.importorskip("transformers")

    def build(name, **changes):
        torch.manual_seed(0)
        model = getattr(transformers, name)(transformers.VideoMAEConfig(**(TINY | changes))).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model

    return build


@pytest.fixture
def video():
    return torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pixels(video):
    """The video as the reference wants it: normalised beforehand."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (video.float() / 255 - mean) / std


@pytest.fixture
def assert_close(record_property):
    """Relative error in the largest absolute value, kept in the test report as ``relative_error``."""

    def check(ours, theirs, tolerance=1e-5):
        assert ours.shape == theirs.shape
        error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        record_property("relative_error", error)
        assert error < tolerance, f"relative error {error:.2e}"

    return check
