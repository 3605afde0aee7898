import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from filmstrip.errors import UserError
from filmstrip.models.perceptual import Perceptual
from filmstrip.objectives.perceptual import from_lpips, load_perceptual

NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(scope="module")
def published():
    """VGG-16 and the linear layers under their published names, with random values."""
    generator = torch.Generator().manual_seed(0)
    vgg, inputs = {}, 3
    for number, width in zip(NUMBERS, WIDTHS):
        weight = torch.randn(width, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        vgg |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(width)}
        inputs = width
    vgg["classifier.0.weight"] = torch.zeros(2, 2)
    widths = (64, 128, 256, 512, 512)
    lin = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=generator) for i, w in enumerate(widths)}
    return vgg, lin


def reference(vgg, lin, a, b):
    """LPIPS written out from its definition, layer by layer."""

    def taps(x):
        shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        x = (x * 2 - 1 - shift) / torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        for number in range(30):
            if number in NUMBERS:
                x = F.relu(F.conv2d(x, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1))
            if number in (2, 7, 14, 21, 28):
                yield F.normalize(x, dim=1)
                x = F.max_pool2d(x, 2)

    pairs = zip(taps(a), taps(b), lin.values())
    return sum(F.conv2d((x - y) ** 2, weight).mean(dim=(1, 2, 3)) for x, y, weight in pairs)


@torch.no_grad()
def test_published_weights_give_the_published_distance(published, tmp_path):
    vgg, lin = published
    save_file(vgg, tmp_path / "vgg16.safetensors")
    torch.save(lin, tmp_path / "lin.pth")
    network = load_perceptual([tmp_path / "vgg16.safetensors", tmp_path / "lin.pth"])
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert network.name == "lpips_vgg"
    torch.testing.assert_close(network(a, b), reference(vgg, lin, a, b), rtol=1e-4, atol=1e-5)
    assert network(a, a).abs().max() == 0


def test_both_spellings_of_the_features(published):
    vgg, lin = published
    slices = {0: 1, 5: 2, 10: 3, 17: 4, 24: 5}

    def in_slice(name):
        number = int(name.split(".")[1])
        stage = slices[max(start for start in slices if start <= number)]
        return f"net.slice{stage}.{name.removeprefix('features.')}"

    spelt = {in_slice(name): tensor for name, tensor in vgg.items() if name.startswith("features.")}
    ours, other = from_lpips(vgg | lin), from_lpips(spelt | lin)
    assert ours.keys() == other.keys() and len(ours) == 2 * 13 + 5


@pytest.fixture(scope="module")
def alexnet():
    """AlexNet's features and linear layers under their published names, with random values."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    features, lin = {}, {}
    for i, (number, (width, inputs, kernel)) in enumerate(shapes.items()):
        weight = torch.randn(width, inputs, kernel, kernel, generator=generator) * (2 / (kernel**2 * inputs)) ** 0.5
        features |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(width)}
        lin[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    return features, lin


@torch.no_grad()
def test_alexnet_is_recognised_by_its_first_layer_and_named(alexnet, published, tmp_path):
    features, lin = alexnet
    save_file(features, tmp_path / "first.safetensors")
    save_file(lin, tmp_path / "second.safetensors")
    network = load_perceptual([tmp_path / "second.safetensors", tmp_path / "first.safetensors"])
    a, b = torch.rand(2, 2, 3, 64, 48, generator=torch.Generator().manual_seed(1))

    def taps(x):  # torchvision's features, layer by layer, as lpips taps them
        layers = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
            *(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
        layers.load_state_dict({name.removeprefix("features."): tensor for name, tensor in features.items()})
        x = (x * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / network.scale
        for layer in layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                yield F.normalize(x, dim=1)

    pairs = zip(taps(a), taps(b), lin.values())
    expected = sum(F.conv2d((x - y) ** 2, weight).mean(dim=(1, 2, 3)) for x, y, weight in pairs)
    assert network.name == "lpips_alex"
    torch.testing.assert_close(network(a, b), expected, rtol=1e-4, atol=1e-5)
    assert network(a[..., :31, :31], b[..., :31, :31]).isfinite().all()
    with pytest.raises(UserError, match="31 pixels or more, not 30 x 48"):
        network(a[..., :30, :], b[..., :30, :])
    save_file(published[1], tmp_path / "vgg_lin.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        load_perceptual([tmp_path / "first.safetensors", tmp_path / "vgg_lin.safetensors"])
    assert load_perceptual([tmp_path / "gone_alex.pth"]).name == "lpips_alex"


def test_missing_weights_are_named(published, tmp_path):
    save_file(published[0], tmp_path / "vgg16.safetensors")
    with pytest.raises(UserError, match=r"no weights\.0.*lin0\.model\.1\.weight"):
        load_perceptual([tmp_path / "vgg16.safetensors"])


def test_a_pickle_is_refused(tmp_path):
    torch.save({"model": Perceptual}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="not a file of plain weights"):
        load_perceptual([tmp_path / "weights.pth"])


def test_an_absent_file_matters_only_when_used(tmp_path):
    network = load_perceptual([tmp_path / "gone.pth"])
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(UserError, match=r"gone\.pth, which is not there"):
        network(images, images)
    network.load_state_dict(Perceptual().state_dict())
    assert network(images, images).item() == 0


class TestStandIn:
    def test_is_named_and_the_same_everywhere(self):
        torch.manual_seed(1)
        one = load_perceptual([])
        torch.manual_seed(2)
        two = load_perceptual([])
        assert one.name == "random_features"
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
        assert not any(p.requires_grad for p in one.parameters())

    def test_grows_with_blur_and_passes_gradients(self):
        network = Perceptual.stand_in()
        sharp = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        distances = [network(F.avg_pool2d(sharp, k, 1, k // 2, count_include_pad=False), sharp) for k in (1, 3, 5)]
        assert 0 == distances[0] < distances[1] < distances[2]
        made = torch.zeros(1, 3, 32, 32, requires_grad=True)
        network(made, sharp).sum().backward()
        assert made.grad.isfinite().all() and made.grad.any()
