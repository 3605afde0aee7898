"""Key maps, tried on files in the released layouts; the forward passes here read those, and nothing of ours."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start_encoder
from filmstrip.systems.detection.actor_roi import ActorRoIConfig
from filmstrip.systems.recognition.c3d import ucf101
from filmstrip.systems.recognition.i3d import I3DConfig
from filmstrip.systems.recognition.nonlocal_net import NonLocalNetConfig
from filmstrip.systems.recognition.r2plus1d import R2Plus1DConfig
from filmstrip.systems.recognition.slowfast import SlowFastConfig
from filmstrip.systems.recognition.x3d import X3DConfig
from filmstrip.weights.released import from_published, load_published, published_names, to_published

RESNET = dict(stem_width=8, depths=(1, 2, 1), stem_frames=5, frames=((3,), (3, 1), (1,)), pool_frames=True)
CONFIGS = {
    "i3d": NonLocalNetConfig(**RESNET, nonlocal_after=((), (), ()), num_classes=5),
    "nonlocal": NonLocalNetConfig(**RESNET, nonlocal_after=((), (0,), ()), num_classes=5),
    "slowfast": SlowFastConfig(
        stem_width=16, depths=(1, 1, 1, 1), speed_ratio=4, narrower=8, fusion_frames=5, num_classes=5
    ),
    "x3d": X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=32, num_classes=5),
}
CONFIGS["actors"] = ActorRoIConfig(backbone=replace(CONFIGS["slowfast"], dilated=True), num_classes=7, size=7)


def build(name, seed=0):
    """A network with weights that are all different, its scales and running means included."""
    torch.manual_seed(seed)
    objective = CONFIGS[name].build().eval()
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(tensor, 0.2, 0.6)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return objective


LAYOUTS = [(n, layout) for n in ("i3d", "slowfast", "x3d") for layout in ("PyTorchVideo", "SlowFast")]
LAYOUTS.append(("nonlocal", "SlowFast"))
LAYOUTS += [("actors", layout) for layout in ("PyTorchVideo", "SlowFast", "PyTorchVideo detection")]


@torch.no_grad()
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_there_and_back_through_a_file(name, layout, tmp_path):
    objective, other = build(name), build(name, seed=1)
    state = to_published(objective, layout)
    assert all(t.ndim in (0, 1, 2, 5) for t in state.values())
    assert len(state) == len(published_names(objective, layout))  # no two share a name
    torch.save({"model_state": state, "epoch": 3}, tmp_path / "released.pyth")
    load_published(tmp_path / "released.pyth", other)
    assert all(torch.equal(a, b) for a, b in zip(objective.state_dict().values(), other.state_dict().values()))


def test_the_former_name_of_a_nonlocal_blocks_norm_is_read_too():
    objective = build("nonlocal")
    state = to_published(objective, "SlowFast")
    former = {key.replace("nonlocal0.norm.", "nonlocal0.bn."): tensor for key, tensor in state.items()}
    assert "s3.pathway0_nonlocal0.bn.weight" in former and former.keys() != state.keys()
    read = from_published(former, objective)
    assert all(
        torch.equal(read[name], objective.state_dict()[name]) for name in published_names(objective, "SlowFast")
    )


NAMES = {
    ("i3d", "PyTorchVideo"): {
        "blocks.0.conv.weight": (8, 3, 5, 7, 7),
        "blocks.1.res_blocks.0.branch1_conv.weight": (32, 8, 1, 1, 1),
        "blocks.1.res_blocks.0.branch1_norm.running_var": (32,),
        "blocks.1.res_blocks.0.branch2.conv_a.weight": (8, 8, 3, 1, 1),
        "blocks.3.res_blocks.1.branch2.conv_b.weight": (16, 16, 1, 3, 3),
        "blocks.4.res_blocks.0.branch2.norm_c.weight": (128,),
        "blocks.6.proj.bias": (5,),
    },
    ("nonlocal", "SlowFast"): {
        "s1.pathway0_stem.bn.bias": (8,),
        "s3.pathway0_res0.branch1_bn.weight": (64,),
        "s3.pathway0_res1.branch2.c_bn.weight": (64,),
        "s3.pathway0_nonlocal0.conv_theta.weight": (32, 64, 1, 1, 1),
        "s3.pathway0_nonlocal0.conv_out.bias": (64,),
        "s3.pathway0_nonlocal0.norm.running_mean": (64,),
        "head.projection.weight": (5, 128),
    },
    ("slowfast", "PyTorchVideo"): {
        "blocks.0.multipathway_blocks.1.conv.weight": (2, 3, 5, 7, 7),
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": (4, 2, 5, 1, 1),
        "blocks.3.multipathway_fusion.norm.weight": (64,),
        "blocks.4.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight": (128, 320, 3, 1, 1),
        "blocks.6.proj.weight": (5, 576),
    },
    ("slowfast", "SlowFast"): {
        "s1.pathway1_stem.conv.weight": (2, 3, 5, 7, 7),
        "s1_fuse.conv_f2s.weight": (4, 2, 5, 1, 1),
        "s4_fuse.bn.bias": (64,),
        "s5.pathway0_res0.branch2.a.weight": (128, 320, 3, 1, 1),
    },
    ("actors", "PyTorchVideo detection"): {
        "model.blocks.0.multipathway_blocks.1.conv.weight": (2, 3, 5, 7, 7),
        "model.blocks.4.multipathway_blocks.0.res_blocks.0.branch2.conv_b.weight": (128, 128, 1, 3, 3),
        "detection_head.proj.weight": (7, 576),
        "detection_head.proj.bias": (7,),
    },
    ("actors", "SlowFast"): {"s1_fuse.bn.bias": (4,), "head.projection.weight": (7, 576)},
    ("x3d", "PyTorchVideo"): {
        "blocks.0.conv.conv_t.weight": (8, 3, 1, 3, 3),
        "blocks.0.conv.conv_xy.weight": (8, 1, 5, 1, 1),
        "blocks.1.res_blocks.0.branch2.norm_b.0.weight": (18,),
        "blocks.1.res_blocks.0.branch2.norm_b.1.block.0.weight": (8, 18, 1, 1, 1),
        "blocks.1.res_blocks.0.branch2.norm_b.1.block.2.bias": (18,),
        "blocks.4.res_blocks.2.branch2.conv_c.weight": (64, 144, 1, 1, 1),
        "blocks.5.pool.pre_norm.weight": (144,),
        "blocks.5.pool.post_conv.weight": (32, 144, 1, 1, 1),
    },
    ("x3d", "SlowFast"): {
        "s1.pathway0_stem.conv_xy.weight": (8, 3, 1, 3, 3),
        "s1.pathway0_stem.conv.weight": (8, 1, 5, 1, 1),
        "s2.pathway0_res0.branch2.se.fc2.weight": (18, 8, 1, 1, 1),
        "s5.pathway0_res2.branch2.c_bn.bias": (64,),
        "head.conv_5_bn.bias": (144,),
        "head.lin_5.weight": (32, 144, 1, 1, 1),
    },
}


@pytest.mark.parametrize(("name", "layout"), NAMES)
def test_names_and_shapes_are_the_released_ones(name, layout):
    state = to_published(build(name), layout)
    assert {key: tuple(state[key].shape) for key in NAMES[name, layout]} == NAMES[name, layout]


class Released:
    """Forward passes that read SlowFast's layout."""

    def __init__(self, state):
        self.state = state

    def norm(self, x, key):
        parts = (self.state[f"{key}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def conv(self, x, key, norm, stride=1, **kwargs):
        weight = self.state[f"{key}.weight"]
        padding = tuple(k // 2 for k in weight.shape[2:])
        stride = (1, stride, stride) if isinstance(stride, int) else stride
        y = F.conv3d(x, weight, stride=stride, padding=padding, **kwargs)
        return self.norm(y, norm) if norm else y

    def stem(self, x, pathway):
        key = f"s1.pathway{pathway}_stem"
        y = F.relu(self.conv(x, f"{key}.conv", f"{key}.bn", stride=2))
        return F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def block(self, x, key, stride, dilation=1):
        y = F.relu(self.conv(x, f"{key}.branch2.a", f"{key}.branch2.a_bn"))
        if dilation == 1:
            y = F.relu(self.conv(y, f"{key}.branch2.b", f"{key}.branch2.b_bn", stride=stride))
        else:
            weight = self.state[f"{key}.branch2.b.weight"]
            y = F.conv3d(y, weight, padding=(0, dilation, dilation), dilation=(1, dilation, dilation))
            y = F.relu(self.norm(y, f"{key}.branch2.b_bn"))
        y = self.conv(y, f"{key}.branch2.c", f"{key}.branch2.c_bn")
        return F.relu(y + self.conv(x, f"{key}.branch1", f"{key}.branch1_bn", stride=stride))

    def slowfast(self, video, ratio):
        pooled = torch.cat([x.mean((2, 3, 4)) for x in self.pathways(video, ratio)], 1)
        return self.head(pooled)

    def actors(self, video, ratio):
        """One box that is the whole frame: 7 x 7 samples, spread over the map."""
        y, x = torch.meshgrid(*[(torch.arange(7.0) + 0.5) / 7 * 2 - 1] * 2, indexing="ij")
        grid = torch.stack([x, y], -1).expand(len(video), -1, -1, -1)
        maps = torch.cat([x.mean(2) for x in self.pathways(video, ratio, last=(1, 2))], 1)
        return self.head(F.grid_sample(maps, grid, padding_mode="border", align_corners=False).amax((2, 3)))

    def head(self, x):
        return F.linear(x, self.state["head.projection.weight"], self.state["head.projection.bias"])

    def pathways(self, video, ratio, last=(2, 1)):
        fast = (video.transpose(1, 2) - 0.45) / 0.225
        slow = fast[:, :, torch.linspace(0, fast.shape[2] - 1, fast.shape[2] // ratio).long()]
        slow, fast = self.stem(slow, 0), self.stem(fast, 1)
        for stage in range(2, 6):
            fuse = f"s{stage - 1}_fuse"
            lateral = F.relu(self.conv(fast, f"{fuse}.conv_f2s", f"{fuse}.bn", stride=(ratio, 1, 1)))
            stride, dilation = last if stage == 5 else (1 if stage == 2 else 2, 1)
            slow = self.block(torch.cat([slow, lateral], 1), f"s{stage}.pathway0_res0", stride, dilation)
            fast = self.block(fast, f"s{stage}.pathway1_res0", stride, dilation)
        return slow, fast

    def x3d_block(self, x, key, stride, excite):
        inner = f"{key}.branch2"
        y = F.relu(self.conv(x, f"{inner}.a", f"{inner}.a_bn"))
        y = self.conv(y, f"{inner}.b", f"{inner}.b_bn", stride=stride, groups=y.shape[1])
        if excite:
            fc1, fc2 = ([self.state[f"{inner}.se.fc{i}.{p}"] for p in ("weight", "bias")] for i in (1, 2))
            y = y * F.conv3d(F.relu(F.conv3d(y.mean((2, 3, 4), keepdim=True), *fc1)), *fc2).sigmoid()
        y = self.conv(F.silu(y), f"{inner}.c", f"{inner}.c_bn")
        if f"{key}.branch1.weight" in self.state:
            norm = f"{key}.branch1_bn" if f"{key}.branch1_bn.weight" in self.state else None
            x = self.conv(x, f"{key}.branch1", norm, stride=stride)
        return F.relu(x + y)

    def x3d(self, video, depths):
        x = (video.transpose(1, 2) - 0.45) / 0.225
        x = self.conv(x, "s1.pathway0_stem.conv_xy", None, stride=2)
        x = F.relu(self.conv(x, "s1.pathway0_stem.conv", "s1.pathway0_stem.bn", groups=x.shape[1]))
        for stage, depth in enumerate(depths, 2):
            for i in range(depth):
                x = self.x3d_block(x, f"s{stage}.pathway0_res{i}", 1 if i else 2, excite=i % 2 == 0)
        x = F.relu(self.conv(x, "head.conv_5", "head.conv_5_bn")).mean((2, 3, 4), keepdim=True)
        x = F.relu(F.conv3d(x, self.state["head.lin_5.weight"])).flatten(1)
        return F.linear(x, self.state["head.projection.weight"], self.state["head.projection.bias"])


@torch.no_grad()
@pytest.mark.parametrize(("name", "arguments"), [("slowfast", (4,)), ("x3d", ((1, 2, 5, 3),))])
def test_released_weights_give_the_released_logits(name, arguments):
    objective = build(name)
    released = Released(to_published(objective, "SlowFast"))
    video = torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = getattr(released, name)(video, *arguments)
    torch.testing.assert_close(
        objective.classify(video), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
    )


@torch.no_grad()
def test_released_weights_give_the_released_logits_of_actors():
    objective = build("actors")
    released = Released(to_published(objective, "SlowFast"))
    video = torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = released.actors(video, 4)
    found = objective.logits(video, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4))[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("layout", ["PyTorchVideo", "SlowFast"])
def test_a_detector_starts_from_a_classifiers_file(tmp_path, layout):
    classifier, detector = build("slowfast"), build("actors", seed=1)
    torch.save({"model_state": to_published(classifier, layout)}, tmp_path / "slowfast.pyth")
    start_encoder(detector, tmp_path / "slowfast.pyth")
    given, taken = classifier.encoder.state_dict(), detector.encoder.state_dict()
    assert all(torch.equal(given[name], taken[name]) for name in given)


@torch.no_grad()
def test_a_classifier_starts_from_a_detectors_file(tmp_path):
    detector, classifier = build("actors"), build("slowfast", seed=1)
    torch.save({"model_state": to_published(detector, "PyTorchVideo detection")}, tmp_path / "detector.pyth")
    start_encoder(classifier, tmp_path / "detector.pyth")
    given, taken = detector.encoder.state_dict(), classifier.encoder.state_dict()
    assert all(torch.equal(given[name], taken[name]) for name in given)


def test_a_layout_that_there_is_not_is_named_with_those_that_there_are():
    with pytest.raises(UserError, match="SlowFast has no layout 'Caffe': there are PyTorchVideo, SlowFast, Py"):
        to_published(build("slowfast"), "Caffe")


def test_c3d():
    with torch.device("meta"):
        objective = ucf101().objective.build()
    state = to_published(objective, "C3D")
    assert tuple(state["conv3b.weight"].shape) == (256, 256, 3, 3, 3)
    assert tuple(state["fc6.weight"].shape) == (4096, 8192) and tuple(state["fc8.bias"].shape) == (101,)
    assert sorted(from_published(state, objective)) == sorted(
        name for name in objective.state_dict() if "normalise" not in name
    )


def test_what_does_not_fit_is_refused(tmp_path):
    objective = build("x3d")
    state = to_published(objective, "PyTorchVideo")
    torch.save({k: v for k, v in state.items() if "pre_conv" not in k}, tmp_path / "part.pyth")
    with pytest.raises(UserError, match=r"lacks blocks\.5\.pool\.pre_conv\.weight;"):
        load_published(tmp_path / "part.pyth", objective)
    torch.save({**state, "blocks.5.proj.bias": torch.zeros(7)}, tmp_path / "other.pyth")
    with pytest.raises(UserError, match=r"head\.bias is \(7,\) there and \(5,\) here"):
        load_published(tmp_path / "other.pyth", objective)
    load_published(tmp_path / "other.pyth", objective, head=False)


@torch.no_grad()
def test_a_run_starts_from_a_file(tmp_path):
    objective, other = build("slowfast"), build("slowfast", seed=1)
    head = other.head.weight.clone()
    torch.save({"model_state": to_published(objective, "SlowFast")}, tmp_path / "slowfast.pyth")
    start_encoder(other, tmp_path / "slowfast.pyth")
    video = torch.rand(1, 8, 3, 64, 64)
    assert torch.equal(other.encoder(video).tokens, objective.encoder(video).tokens)
    assert torch.equal(other.head.weight, head)


@torch.no_grad()
def test_inflated_inception_in_its_own_layouts(tmp_path):
    torch.manual_seed(0)
    objective, other = (I3DConfig(share=1 / 16, num_classes=5).build().eval() for _ in range(2))
    torch.save(to_published(objective), tmp_path / "rgb.pt")
    load_published(tmp_path / "rgb.pt", other)
    video = torch.rand(1, 16, 3, 64, 64)
    assert torch.equal(other.classify(video), objective.classify(video))


def test_other_networks_have_no_released_layout(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="ResNet has no released layout"):
        load_published(
            tmp_path / "a.pt", R2Plus1DConfig(widths=(8,), depths=(1,), stem_width=45, num_classes=5).build()
        )
