"""Other people's weights fit whole or not at all: what is missing, and what has no place, is named."""

import json

import pytest
import torch
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.evals.video_features import load_i3d
from filmstrip.models.i3d import I3D, I3DArchitecture
from filmstrip.models.in_transformers import IMAGE, TIMESFORMER, VIDEOMAE
from filmstrip.models.perceptual import Perceptual
from filmstrip.models.video_swin import inflate_swin
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.objectives.perceptual import load_perceptual
from filmstrip.runs.hub import load_hub
from filmstrip.runs.initial_weights import start_encoder
from filmstrip.systems.recognition.i3d import I3DConfig
from filmstrip.systems.recognition.nonlocal_net import NonLocalNetConfig
from filmstrip.systems.recognition.slowfast import SlowFastConfig
from filmstrip.systems.recognition.timesformer import TimeSformerConfig
from filmstrip.systems.recognition.video_swin import VideoSwinConfig
from filmstrip.systems.recognition.x3d import X3DConfig
from filmstrip.weights.inflate import inflate_weights
from filmstrip.weights.keymap import KeyMap, check_names, some
from filmstrip.weights.released import from_published, load_published, to_published
from run_folders import INFO, save_run

PUBLISHED = {
    "x3d": (X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=16, num_classes=5), "PyTorchVideo"),
    "x3d of slowfast": (
        X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=16, num_classes=5, shortcut_norm=True),
        "SlowFast",
    ),
    "slowfast": (
        SlowFastConfig(stem_width=16, depths=(1, 1, 1, 1), speed_ratio=4, narrower=8, fusion_frames=5, num_classes=5),
        "SlowFast",
    ),
    "swin": (
        VideoSwinConfig(
            width=16, depths=(1, 1), num_heads=(2, 4), window=(2, 4, 4), patch_size=(2, 4, 4), num_classes=5
        ),
        None,
    ),
    "i3d": (I3DConfig(share=1 / 16, num_classes=5), None),
}


def published(name):
    config, layout = PUBLISHED[name]
    torch.manual_seed(0)
    objective = config.build()
    return objective, to_published(objective, layout)


def copies(objective):
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def same(objective, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("name", PUBLISHED)
def test_released_files_fit_whole_or_not_at_all(name, head, tmp_path):
    _, state = published(name)
    target = PUBLISHED[name][0].build()
    before, file = copies(target), tmp_path / "file.pth"
    torch.save(state | {"blocks.9.extra_norm.weight": torch.ones(3)}, file)
    with pytest.raises(UserError, match=r"file\.pth: .*no place for: blocks\.9\.extra_norm\.weight$"):
        load_published(file, target, head=head)
    lost = [key for key in state if key.endswith("weight")][3]
    torch.save({key: tensor for key, tensor in state.items() if key != lost}, file)
    with pytest.raises(UserError, match=rf"file\.pth: .* lacks {lost};"):
        load_published(file, target, head=head)
    odd = next(key for key in state if "running_mean" in key or "norm1.weight" in key)
    torch.save(state | {odd: torch.ones(3)}, file)
    with pytest.raises(UserError, match=r"does not fit this network: .* is \(3,\) there"):
        load_published(file, target, head=head)
    assert same(target, before)
    torch.save(state, file)
    load_published(file, target, head=head)
    assert not same(target, before)


def test_a_file_needs_no_head_to_start_an_encoder_and_may_have_another():
    objective, state = published("slowfast")
    head = {key for key in state if key.startswith("head.")}
    bare = {key: tensor for key, tensor in state.items() if key not in head}
    for given in (bare, state | {"head.projection.weight": torch.zeros(9, 9), "head.more.bias": torch.zeros(1)}):
        weights = from_published(given, objective, head=False)
        assert weights and all(name.startswith("encoder.") for name in weights)
    with pytest.raises(UserError, match=r"lacks head\.projection\.weight"):
        from_published(bare, objective)


def test_the_two_published_x3ds_are_not_taken_for_one_another():
    plain, _ = published("x3d")
    _, slowfast = published("x3d of slowfast")
    with pytest.raises(UserError, match=r"s2\.pathway0_res0\.branch1_bn\.weight.*--objective\.shortcut-norm"):
        from_published(slowfast, plain)
    normed, _ = published("x3d of slowfast")
    with pytest.raises(UserError, match=r"lacks blocks\.1\.res_blocks\.0\.branch1_norm\.weight"):
        from_published(published("x3d")[1], normed)


def test_constants_of_swins_files_are_left_out():
    objective, state = published("swin")
    constant = {"backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(2, 2, dtype=torch.long)}
    assert from_published(state | constant, objective).keys() == (from_published(state, objective).keys())


def test_a_swin_of_other_windows_is_refused():
    _, state = published("swin")
    other = VideoSwinConfig(
        width=16, depths=(1, 1), num_heads=(2, 4), window=(4, 4, 4), patch_size=(2, 4, 4), num_classes=5
    ).build()
    with pytest.raises(UserError, match=r"147 offsets, those of \(4, 4, 4\) have 343"):
        from_published(state, other)


def test_a_flat_swin_fits_whole_or_not_at_all():
    flat = VideoSwinConfig(
        width=16, depths=(1, 1), num_heads=(2, 4), window=(1, 4, 4), patch_size=(1, 4, 4), num_classes=5
    ).build()
    state = {key.removeprefix("backbone."): t for key, t in to_published(flat).items()}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    network = PUBLISHED["swin"][0].build().encoder
    assert inflate_swin(state, network)
    with pytest.raises(UserError, match="no place for: absolute_pos_embed"):
        inflate_swin(state | {"absolute_pos_embed": torch.zeros(1)}, network)
    del state["norm.bias"]
    with pytest.raises(UserError, match=r"lacks norm\.bias"):
        inflate_swin(state, network)


@pytest.fixture
def vit_state():
    """An encoder of VideoMAE, as its file holds it."""
    architecture = ViTArchitecture(width=48, depth=2, num_heads=4, num_frames=4, size=32, patch_size=(2, 8, 8))
    encoder = ViT(architecture, final_norm=False)
    return VIDEOMAE.theirs(encoder.state_dict(), VIDEOMAE.encoder, (2, 8, 8))


def test_videomaes_parts_around_the_encoder_are_left_out_and_nothing_else(vit_state):
    inside = {f"videomae.{name}": tensor for name, tensor in vit_state.items()}
    around = {"decoder.norm.weight": torch.ones(1), "mask_token": torch.ones(1), "classifier.bias": torch.ones(1)}
    assert VIDEOMAE.encoder_from(inside | around).keys() == VIDEOMAE.encoder_from(vit_state).keys()
    for extra in ("videomae.registers", "tower.weight"):
        with pytest.raises(UserError, match=f"no place for: {extra.removeprefix('videomae.')}$"):
            VIDEOMAE.encoder_from(inside | {extra: torch.ones(1)})
    with pytest.raises(UserError, match=r"no place for: decoder\.norm\.weight"):
        VIDEOMAE.encoder_from(vit_state | {"decoder.norm.weight": torch.ones(1)})


def test_transformers_classifiers_have_no_other_parts():
    objective = TimeSformerConfig(
        width=48, depth=2, num_heads=4, num_frames=4, size=32, patch_size=8, num_classes=5
    ).build()
    layout, (_, state) = TIMESFORMER, objective.to_transformers()
    assert layout.ours(state, layout.classifier)
    with pytest.raises(UserError, match=r"no place for: timesformer\.scale$"):
        layout.ours(state | {"timesformer.scale": torch.ones(1)}, layout.classifier)
    with pytest.raises(UserError, match=r"no place for: scale$"):
        layout.encoder_from(state | {"timesformer.scale": torch.ones(1)})
    with pytest.raises(UserError, match=r"no place for: scale$"):
        layout.encoder_from(state | {"scale": torch.ones(1)})


def test_a_folder_of_the_hubs_layout_fits_whole_or_not_at_all(vit_state, tmp_path):
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
    config = {"model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 4, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(vit_state, tmp_path / "model.safetensors")
    load_hub(str(tmp_path))
    for part in ("query", "key", "value"):
        lost = f"encoder.layer.1.attention.attention.{part}.weight"
        save_file({n: t for n, t in vit_state.items() if n != lost}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=f"lacks {lost};"):
            load_hub(str(tmp_path))
    deeper = {
        f"encoder.layer.2.{n.split('.', 3)[3]}": t for n, t in vit_state.items() if n.startswith("encoder.layer.1")
    }
    save_file(vit_state | {n: t.clone() for n, t in deeper.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no place for: blocks\.2\..* and \d+ more"):
        load_hub(str(tmp_path))


def test_lpips_fits_whole_or_not_at_all(tmp_path):
    network, numbers = Perceptual("alex"), (0, 3, 6, 8, 10)
    state = {
        f"features.{numbers[int(n.split('.')[1])]}.{n.rsplit('.')[-1]}": t
        for n, t in network.stages.named_parameters(prefix="stages")
    }
    state |= {f"lin{i}.model.1.weight": weight.view(1, -1, 1, 1) for i, weight in enumerate(network.weights)}
    also = {"classifier.1.bias": torch.ones(1), "scaling_layer.shift": torch.ones(3)}
    save_file({n: t.detach().clone() for n, t in (state | also).items()}, tmp_path / "alex.safetensors")
    load_perceptual([tmp_path / "alex.safetensors"])
    for extra in ("features.12.weight", "lin5.model.1.weight", "norm.bias"):
        save_file(
            {n: t.detach().clone() for n, t in state.items()} | {extra: torch.ones(1)}, tmp_path / "more.safetensors"
        )
        with pytest.raises(UserError, match=rf"more\.safetensors: .*no place for: {extra}"):
            load_perceptual([tmp_path / "more.safetensors"])


def test_inflation_is_of_whole_networks():
    shape = {"stem_width": 8, "depths": (1,), "nonlocal_after": ((),), "num_classes": 5}
    flat = NonLocalNetConfig(stem_frames=1, frames=((1,),), **shape).build().encoder.state_dict()
    solid = NonLocalNetConfig(stem_frames=5, frames=((3,),), **shape).build().encoder.state_dict()
    with pytest.raises(UserError, match=r"the 2D network has weights .*: fc\.bias$"):
        inflate_weights(flat | {"fc.bias": torch.ones(1)}, solid)
    assert inflate_weights(flat | {"fc.bias": torch.ones(1)}, solid, spare=(r"fc\..*",)).keys() == solid.keys()
    lost = next(iter(name for name in flat if name.endswith("running_var")))
    less = {name: tensor for name, tensor in flat.items() if name != lost}
    with pytest.raises(UserError, match=f"the 2D network lacks {lost};"):
        inflate_weights(less, solid)
    assert lost not in inflate_weights(less, solid, optional=(r".*running_var",))


def test_key_maps_leave_out_nothing_but_what_they_say():
    keys = KeyMap((("a.{i}.w", "b.{i}.weight"),), spare=(r"head\..*",))
    one = torch.ones(1)
    assert keys.ours({"a.0.w": one, "head.w": one}).keys() == {"b.0.weight"}
    with pytest.raises(UserError, match=r"no place for: a\.0\.v, head$"):
        keys.ours({"a.0.w": one, "a.0.v": one, "head": one})
    assert keys.theirs({"b.3.weight": one, "embed.normalise.mean": one}).keys() == {"a.3.w"}
    with pytest.raises(UserError, match=r"no place for: b\.3\.bias$"):
        keys.theirs({"b.3.weight": one, "b.3.bias": one})


def test_many_names_are_counted():
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    assert some("ab") == "a, b"
    with pytest.raises(UserError, match="this lacks a; the first names given are none"):
        check_names("this", (), ("a",))


def test_a_deeper_encoder_does_not_start_a_shallower_one(tmp_path):
    save_run(tmp_path / "deep", "recognition.vit:tiny", depth=6)
    objective = systems.find("recognition.vit:tiny").bound(INFO).objective.build()
    before = copies(objective)
    with pytest.raises(UserError, match=r"no place for: blocks\..* and \d+ more"):
        start_encoder(objective, tmp_path / "deep")
    assert same(objective, before)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_image_transformer_of_another_depth_starts_no_videos(tmp_path, depth):
    sizes = {"width": 48, "num_heads": 4, "num_frames": 4, "size": 32, "num_classes": 5}
    image = TimeSformerConfig(**sizes, depth=2, patch_size=8, attention="space").build()
    names = IMAGE.theirs(image.state_dict(), IMAGE.classifier, (1, 8, 8))
    save_file(names, tmp_path / "model.safetensors")
    config = {"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "intermediate_size": 192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = TimeSformerConfig(**sizes, depth=depth, patch_size=8).build()
    before = copies(other)
    with pytest.raises(UserError, match=r"cannot start this network: it (lacks|has weights that)"):
        start_encoder(other, tmp_path)
    assert same(other, before)
    wider = TimeSformerConfig(**(sizes | {"width": 96}), depth=2, patch_size=8).build()
    before = copies(wider)
    with pytest.raises(UserError, match="other shapes"):
        start_encoder(wider, tmp_path)
    assert same(wider, before)


def test_i3d_for_features_is_whole(tmp_path):
    state = to_published(I3D(I3DArchitecture(num_classes=3)))
    save_file(
        {n: t.contiguous() for n, t in state.items()} | {"logits.norm.weight": torch.ones(1)},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(UserError, match=r"a\.safetensors: .*no place for: logits\.norm\.weight"):
        load_i3d(tmp_path / "a.safetensors")
