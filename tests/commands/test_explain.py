import pytest
import torch
from einops import rearrange

from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work.explain import attends, attention_rollout, explain_file, grad_cam, overlay
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.models.video_transformer import JOINT, SpaceTimeTransformer, TransformerArchitecture
from filmstrip.runs import classifiers
from filmstrip.video import open_video

TRANSFORMERS = (
    "recognition.vit:tiny",
    "recognition.timesformer:tiny",
    "recognition.vivit:tiny",
    "recognition.vivit:tiny_frozen",
    "recognition.vtn:tiny",
)
LABELS = tuple(str(i) for i in range(8))


def built(address):
    torch.manual_seed(0)
    return systems.find(address).objective.build().eval()


def clip(frames=8, size=64):
    return torch.randint(0, 256, (1, frames, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()


def sharpen(module):
    """Weights large enough that attention is far from uniform."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def test_rollout_of_joint_attention_is_the_product_of_its_matrices():
    torch.manual_seed(0)
    architecture = TransformerArchitecture(
        width=24, depth=3, num_heads=2, num_frames=4, size=16, patch_size=(2, 8, 8)
    )
    encoder = SpaceTimeTransformer(JOINT, architecture)
    sharpen(encoder.eval())
    video = clip(4, 16)
    seen, matrices = [], []
    for block in encoder.blocks:
        block.attention.register_forward_pre_hook(lambda module, given: seen.append((module, given[0])))
    with torch.no_grad():
        expected_tokens = encoder(video).tokens
        for module, x in seen:
            q, k, _ = module._project(x, None)
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)
            matrices.append(weights + torch.eye(weights.shape[-1]))
    row = (matrices[2] @ matrices[1] @ matrices[0])[:, 0, 1:]
    expected = rearrange(row / row.amax(), "b (t h w) -> b t h w", t=2, h=2)
    heat = attention_rollout(encoder, video)
    torch.testing.assert_close(heat, expected)
    assert heat.min() < 0.9  # not everywhere the same
    torch.testing.assert_close(encoder(video).tokens.detach(), expected_tokens)  # left as it was


@pytest.mark.parametrize("address", TRANSFORMERS)
def test_rollout_reads_every_transformer(address):
    objective = built(address)
    sharpen(objective)
    assert attends(encoder_of(objective))
    before = objective.classify(clip()).detach()
    heat = attention_rollout(objective.encoder, clip())
    assert heat.shape[0] == 1 and heat.shape[1] in (4, 8)
    assert heat.isfinite().all() and heat.min() >= 0 and heat.max() == 1 and heat.min() < 0.99
    assert all(p.grad is None for p in objective.parameters())
    torch.testing.assert_close(objective.classify(clip()).detach(), before)


def test_grad_cam_of_a_linear_head_is_the_class_activation_map():
    objective = built("recognition.r2plus1d:tiny")
    assert not attends(encoder_of(objective))
    features = objective.encoder(clip())
    evidence = (features.tokens @ objective.head.weight.T)[0].detach()
    label = int(evidence.amax(dim=0).argmax())
    expected = evidence[:, label].clamp(min=0).view(*features.grid)
    assert expected.amax() > 0
    torch.testing.assert_close(grad_cam(objective, clip(), label), expected / expected.amax())


@pytest.mark.parametrize("address", ["recognition.lrcn:tiny", "recognition.slowfast:tiny", "recognition.x3d:tiny"])
def test_grad_cam_reads_networks_of_several_kinds(address):
    objective = built(address)
    run = systems.find(address)
    heat = grad_cam(objective, clip(run.data.clip.num_frames, run.data.clip.size), 0)
    assert heat.ndim == 3 and heat.isfinite().all() and heat.min() >= 0 and heat.max() <= 1


def test_overlay_colours_where_the_heat_is():
    video = torch.full((4, 3, 16, 16), 0.5)
    heat = torch.zeros(2, 4, 4)
    heat[:, 0, 0] = 1
    shown = overlay(video, heat)
    assert shown.shape == video.shape and shown.min() >= 0 and shown.max() <= 1
    torch.testing.assert_close(shown[:, :, 8:, 8:], video[:, :, 8:, 8:])
    assert (shown[:, :, :2, :2] - 0.5).abs().amax(dim=1).min() > 0.1


@pytest.fixture
def a_run(monkeypatch):
    def use(address):
        monkeypatch.setattr(classifiers, "is_run", lambda folder: True)
        loaded = built(address), systems.find(address)
        monkeypatch.setattr(classifiers, "load_objective", lambda folder, *_, **__: loaded)
        monkeypatch.setattr(classifiers, "load_classes", lambda folder: LABELS)

    return use


@pytest.mark.parametrize(
    ("address", "method"),
    [("recognition.timesformer:tiny", "attention rollout"), ("recognition.r2plus1d:tiny", "Grad-CAM")],
)
def test_a_video_is_written_with_one_command(a_run, tmp_path, capsys, address, method):
    a_run(address)
    file, out = write_colours(tmp_path / "flag.mp4", "red", "blue"), tmp_path / "overlay.mp4"
    assert main(["explain", str(tmp_path), str(file), "--out", str(out), "--class", "3"]) == 0
    assert method in capsys.readouterr().out
    with open_video(out) as video:
        assert (video.info.height, len(video.times())) == (448, 8) and video.info.width > 896


def test_what_cannot_be_explained_is_refused(a_run, tmp_path, monkeypatch):
    a_run("recognition.timesformer:tiny")
    file = write_colours(tmp_path / "flag.mp4", "red")
    with pytest.raises(UserError, match="knows no class 'jumping'"):
        explain_file(tmp_path, file, tmp_path / "a.mp4", class_name="jumping")
    with pytest.raises(UserError, match="not a transformer over patches"):
        attention_rollout(built("recognition.r2plus1d:tiny").encoder, clip())
    a_run("pretraining.videomae:tiny")
    with pytest.raises(UserError, match="is not a classifier"):
        explain_file(tmp_path, file, tmp_path / "a.mp4")
