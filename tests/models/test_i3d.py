import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.evals.video_features import load_i3d
from filmstrip.models.i3d import I3D, I3DArchitecture, max_pool_same, pad_same
from filmstrip.protocols import Classifier, Encoder
from filmstrip.weights.released import from_published, to_published

K400 = I3DArchitecture(num_classes=400)

MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def published_units():
    """Every convolution of pytorch-i3d by its published name: inputs, outputs, kernel."""
    yield from (("Conv3d_1a_7x7", 3, 64, 7), ("Conv3d_2b_1x1", 64, 64, 1), ("Conv3d_2c_3x3", 64, 192, 3))
    for name, (inputs, b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        yield f"Mixed_{name}.b0", inputs, b0, 1
        yield f"Mixed_{name}.b1a", inputs, b1a, 1
        yield f"Mixed_{name}.b1b", b1a, b1b, 3
        yield f"Mixed_{name}.b2a", inputs, b2a, 1
        yield f"Mixed_{name}.b2b", b2a, b2b, 3
        yield f"Mixed_{name}.b3b", inputs, b3b, 1


@pytest.fixture(scope="module")
def published():
    """A state in pytorch-i3d's layout with random values."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, inputs, outputs, kernel in published_units():
        weight = torch.randn(outputs, inputs, kernel, kernel, kernel, generator=generator)
        state[f"{name}.conv3d.weight"] = weight * (2 / inputs / kernel**3) ** 0.5
        for part in ("weight", "running_var"):
            state[f"{name}.bn.{part}"] = torch.rand(outputs, generator=generator) + 0.5
        for part in ("bias", "running_mean"):
            state[f"{name}.bn.{part}"] = torch.randn(outputs, generator=generator) * 0.1
    state["logits.conv3d.weight"] = torch.randn(400, 1024, 1, 1, 1, generator=generator) / 32
    state["logits.conv3d.bias"] = torch.randn(400, generator=generator)
    return state


def reference_logits(state, video):
    """I3D written out over the published names, as the paper's figure 3 has it."""

    def padded(x, kernel, stride, value=0.0):
        sides = []
        for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride))):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            sides += [total // 2, total - total // 2]
        return F.pad(x, sides, value=value)

    def unit(x, name, stride=1):
        weight = state[f"{name}.conv3d.weight"]
        x = F.conv3d(padded(x, weight.shape[2:], (stride,) * 3), weight, stride=stride)
        mean, var, scale, shift = (
            state[f"{name}.bn.{part}"].view(-1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu((x - mean) / (var + 1e-3).sqrt() * scale + shift)

    def pool(x, kernel, stride):
        return F.max_pool3d(padded(x, kernel, stride, value=float("-inf")), kernel, stride)

    x = unit(video.transpose(1, 2) * 2 - 1, "Conv3d_1a_7x7", stride=2)
    x = unit(pool(x, (1, 3, 3), (1, 2, 2)), "Conv3d_2b_1x1")
    x = pool(unit(x, "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for name in MIXED:
        x = pool(x, (3, 3, 3), (2, 2, 2)) if name == "4b" else pool(x, (2, 2, 2), (2, 2, 2)) if name == "5b" else x
        m = f"Mixed_{name}"
        branches = [unit(x, f"{m}.b0")]
        branches += [unit(unit(x, f"{m}.b{i}a"), f"{m}.b{i}b") for i in (1, 2)]
        x = torch.cat([*branches, unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{m}.b3b")], dim=1)
    x = F.avg_pool3d(x, (2, *(min(7, side) for side in x.shape[3:])), stride=1)
    logits = F.conv3d(x, state["logits.conv3d.weight"], state["logits.conv3d.bias"])
    return logits.mean(dim=(2, 3, 4))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 17, 3, 64, 66)])
def test_published_weights_give_the_published_logits(published, tmp_path, shape):
    save_file(published, tmp_path / "rgb_imagenet.safetensors")
    network = load_i3d(tmp_path / "rgb_imagenet.safetensors")
    video = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = reference_logits(published, video)
    torch.testing.assert_close(network.classify(video), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_size_is_that_of_the_published_network(published):
    with torch.device("meta"):
        network = I3D(K400)
    trained = {k: v for k, v in published.items() if "running" not in k}
    assert sum(p.numel() for p in network.parameters()) == sum(v.numel() for v in trained.values()) == 12_697_264
    assert network.width == 1024 and network.depth == 4


def test_both_layouts_and_back(published, tmp_path):
    branches = {"b0": "branch_0", "b3b": "branch_3.1"}
    branches |= {f"b{i}{'ab'[j]}": f"branch_{i}.{j}" for i in (1, 2) for j in (0, 1)}
    script = {}
    for name, tensor in published.items():
        head, *rest = name.replace(".bn.", ".batch3d.").replace("logits", "conv3d_0c_1x1").split(".")
        script[".".join([head[0].lower() + head[1:], *(branches.get(part, part) for part in rest)])] = tensor
    assert "mixed_4b.branch_2.1.batch3d.running_var" in script
    network = I3D(K400)
    ours = from_published(published, network)
    network.load_state_dict(ours, strict=False)
    there = to_published(network, "TorchScript")
    for other in (from_published(script, network), from_published(there, network)):
        assert ours.keys() <= other.keys() and all(torch.equal(ours[k], other[k]) for k in ours)
    back = {k: t for k, t in to_published(network).items() if "num_batches" not in k}
    assert back.keys() == published.keys() and all(torch.equal(back[k], published[k]) for k in back)
    torch.save(script, tmp_path / "i3d.pt")
    assert torch.equal(
        load_i3d(tmp_path / "i3d.pt").stages[1][0].branches[2][1].norm.running_var,
        published["Mixed_4b.b2b.bn.running_var"],
    )


def test_another_number_of_classes_is_read_off_the_file(tmp_path):
    save_file(to_published(I3D(I3DArchitecture(num_classes=7))), tmp_path / "seven.safetensors")
    assert load_i3d(tmp_path / "seven.safetensors").head.out_features == 7


class Program(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_files_that_are_not_plain_weights_of_i3d_are_refused(published, tmp_path):
    torch.jit.script(Program()).save(tmp_path / "program.pt")
    with pytest.raises(UserError, match="TorchScript, a program that is not run here"):
        load_i3d(tmp_path / "program.pt")
    torch.save({"model": Program()}, tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="not a file of plain weights"):
        load_i3d(tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="is not there"):
        load_i3d(tmp_path / "gone.pt")
    with pytest.raises(UserError, match="not a released I3D"):
        from_published({"features.0.weight": torch.zeros(1)}, I3D(K400))
    save_file({k: v for k, v in published.items() if "4d.b0" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"lacks Mixed_4d\.b0\.conv3d\.weight"):
        load_i3d(tmp_path / "part.safetensors")
    save_file({**published, "logits.conv3d.bias": torch.zeros(7)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"does not fit I3D: size mismatch for head\.bias"):
        load_i3d(tmp_path / "odd.safetensors")


@torch.no_grad()
def test_encoder_and_classifier():
    network = I3D(I3DArchitecture(num_classes=5, share=1 / 16)).eval()
    assert isinstance(network, Encoder) and isinstance(network, Classifier)
    video = torch.randint(0, 256, (2, 9, 3, 64, 96), dtype=torch.uint8)
    features = network(video, layers=True)
    assert features.tokens.shape == (2, 2 * 2 * 3, network.width) and features.grid == (2, 2, 3)
    assert [layer.shape[1] for layer in features.layers] == [5 * 16 * 24, 5 * 8 * 12, 3 * 4 * 6, 2 * 2 * 3]
    torch.testing.assert_close(network.classify(video), network.head(features.pooled()), rtol=1e-4, atol=1e-4)
    assert network.classify(video[:, :1]).shape == (2, 5)
    assert {network.depth_of(name) for name, _ in network.named_parameters()} == {0, 1, 2, 3, 4}
    with pytest.raises(ValueError, match="no head"):
        I3D(I3DArchitecture(share=1 / 16)).classify(video)


def test_stand_in_is_named_and_the_same_everywhere():
    one, two = I3D.stand_in(), I3D.stand_in()
    assert one.name == "random_i3d" and I3D.name == "i3d"
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert not any(p.requires_grad for p in one.parameters())


def test_same_padding_is_uneven_at_the_end():
    x = torch.ones(1, 1, 4, 5, 6)
    assert pad_same(x, (3, 3, 7), (2, 2, 2)).shape == (1, 1, 5, 7, 11)
    assert pad_same(x, (3, 3, 7), (2, 2, 2))[0, 0, :, 3, 5].tolist() == [1, 1, 1, 1, 0]
    assert max_pool_same(x, (2, 2, 2), (2, 2, 2)).shape == (1, 1, 2, 3, 3)
