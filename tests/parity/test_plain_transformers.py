"""TimeSformer, ViViT and image transformers against ``transformers``, through the files that it writes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstrip.errors import UserError
from filmstrip.models.in_transformers import TIMESFORMER, VIVIT
from filmstrip.models.video_transformer import (
    JOINT,
    FrameTransformer,
    SpaceTimeTransformer,
    TransformerArchitecture,
    image_filter,
)
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.encoders import load
from filmstrip.runs.initial_weights import start_encoder
from filmstrip.systems.recognition import timesformer, vivit
from filmstrip.systems.recognition.timesformer import TimeSformerConfig
from filmstrip.systems.recognition.vivit import ViViTConfig
from filmstrip.systems.recognition.vtn import Longformer, VTNConfig

transformers = pytest.importorskip("transformers")

SIZES = dict(image_size=32, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192)
OURS = dict(width=48, depth=3, num_heads=4, num_frames=4, size=32, num_classes=7)
TUBELETS = dict(**OURS, patch_size=(2, 8, 8), gelu="tanh", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
KINDS = {"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}


@pytest.fixture
def written(tmp_path):
    """Writes a reference model with weights large enough that every part matters, and returns it."""

    def write(name, config, preprocessor=None):
        torch.manual_seed(0)
        model = getattr(transformers, name)(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(tmp_path)
        if preprocessor:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return model

    return write


def timesformer_config(attention="divided", **changes):
    return transformers.TimesformerConfig(
        **SIZES, patch_size=8, num_frames=4, attention_type=KINDS[attention], num_labels=7, **changes
    )


def vivit_config():
    return transformers.VivitConfig(**SIZES, tubelet_size=[2, 8, 8], num_frames=4, num_labels=7)


@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_timesformer_logits_agree(written, tmp_path, video, pixels, assert_close, attention):
    theirs = written("TimesformerForVideoClassification", timesformer_config(attention))
    ours = TimeSformerConfig(**OURS, patch_size=8, attention=attention).build().eval()
    weights = TIMESFORMER.ours(load_file(tmp_path / "model.safetensors"), TIMESFORMER.classifier)
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert not unexpected and all("normalise" in name for name in missing)
    with torch.no_grad():
        assert_close(ours.classify(video), theirs(pixels).logits)


def test_frames_alone_agree(written, tmp_path, video, pixels, assert_close):
    # The reference leaves the mean over frames to its caller.
    theirs = written("TimesformerModel", timesformer_config("space"))
    ours = load(tmp_path, "cpu")
    assert isinstance(ours.encoder, FrameTransformer)
    with torch.no_grad():
        features, expected = ours(video), theirs(pixels).last_hidden_state
    assert_close(features.tokens, expected[:, 1:].reshape(2, 4 * 16, 48))
    with torch.no_grad():
        assert_close(ours(video[:, :1]).pooled(), expected.unflatten(0, (2, 4))[:, 0, 0])


def test_vivit_logits_agree(written, tmp_path, video, pixels, assert_close):
    theirs = written("VivitForVideoClassification", vivit_config())
    ours = ViViTConfig(**TUBELETS).build().eval()
    ours.load_state_dict(VIVIT.ours(load_file(tmp_path / "model.safetensors"), VIVIT.classifier), strict=False)
    normalised = (video.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        assert_close(ours.classify(video), theirs(normalised).logits)


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (TimeSformerConfig(**OURS, patch_size=8), "Timesformer"),
        (TimeSformerConfig(**OURS, patch_size=8, attention="joint"), "Timesformer"),
        (ViViTConfig(**TUBELETS), "Vivit"),
    ],
)
def test_ours_runs_in_theirs(tmp_path, video, assert_close, ours, name):
    torch.manual_seed(5)
    objective = ours.build().eval()
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    described, weights = objective.to_transformers()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({**described, "num_labels": 7}))
    theirs, report = getattr(transformers, f"{name}ForVideoClassification").from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        normalised = objective.encoder.embed.normalise(video)
        assert_close(objective.classify(video), theirs.eval()(normalised).logits)
    again, mine = load(tmp_path, "cpu").encoder.state_dict(), objective.encoder.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in mine.items() if "normalise" not in name)


@pytest.mark.parametrize("variant", ["factorised_encoder", "factorised", "factorised_heads"])
def test_what_transformers_does_not_have_is_said(variant):
    with pytest.raises(UserError, match="transformers has no network like this"):
        ViViTConfig(**OURS, patch_size=(2, 8, 8), variant=variant).build().to_transformers()


@pytest.mark.parametrize(
    ("name", "config", "preprocessor", "scaled"),
    [
        (
            "TimesformerModel",
            timesformer_config,
            {"image_mean": [0.45] * 3, "image_std": [0.225] * 3},
            lambda p: (p - 0.45) / 0.225,
        ),
        (
            "VivitModel",
            vivit_config,
            {"rescale_factor": 1 / 127.5, "offset": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            lambda p: (p * 2 - 1 - 0.5) / 0.5,
        ),
        ("VivitModel", vivit_config, {"do_normalize": False}, lambda p: p),
    ],
)
def test_folders_load_with_their_own_preprocessing(
    written, tmp_path, video, assert_close, name, config, preprocessor, scaled
):
    theirs = written(name, config(), preprocessor)
    ours = load(tmp_path, "cpu")
    assert (ours.clip.num_frames, ours.clip.size) == (4, 32)
    body = getattr(theirs, "timesformer", theirs)
    with torch.no_grad():
        features, expected = ours(video), body(scaled(video.float() / 255)).last_hidden_state
    assert_close(features.pooled(), expected[:, 0])
    if name == "VivitModel":
        assert_close(features.tokens, expected[:, 1:])
    else:  # place by place there, frame by frame here
        assert_close(features.tokens, expected[:, 1:].unflatten(1, (16, 4)).transpose(1, 2).flatten(1, 2))


@pytest.fixture
def image(written, tmp_path):
    """An image transformer in the Hub's layout: the model and its folder."""
    model = written("ViTModel", transformers.ViTConfig(**SIZES, patch_size=8))
    return model, tmp_path


def test_image_transformers_agree(image, video, pixels, assert_close):
    theirs, folder = image
    with torch.no_grad():
        ours, expected = load(folder, "cpu")(video), theirs(pixels[:, 0]).last_hidden_state
        assert_close(ours.tokens[:, :16], expected[:, 1:])
        assert_close(load(folder, "cpu")(video[:, :1]).pooled(), expected[:, 0])


def still(video):
    """The first frame, over and over."""
    return video[:, :1].expand_as(video)


@pytest.mark.parametrize("attention", ["space", "divided"])
def test_timesformer_starts_as_the_image_transformer(image, video, pixels, assert_close, attention):
    theirs, folder = image
    ours = TimeSformerConfig(**OURS, patch_size=8, attention=attention).build().eval()
    start_encoder(ours, folder)
    for block in ours.encoder.blocks[:1] if attention == "divided" else ():
        torch.nn.init.zeros_(block.time_fc.weight)  # the one that starts at random
    for norm in (m for m in ours.modules() if isinstance(m, torch.nn.LayerNorm)):
        norm.eps = 1e-12
    with torch.no_grad():
        assert_close(ours.encoder(still(video)).pooled(), theirs(pixels[:, 0]).last_hidden_state[:, 0])


@pytest.mark.parametrize("init", ["central_frame", "inflate"])
@pytest.mark.parametrize("variant", ["joint", "factorised_encoder", "factorised"])
def test_vivit_starts_as_the_image_transformer(image, video, assert_close, variant, init):
    theirs, folder = image
    config = ViViTConfig(**TUBELETS, variant=variant, tubelet_init=init)
    ours = config.build().eval().encoder
    objective = Classification(ours, ClassificationConfig(num_classes=7))
    start_encoder(objective, folder)
    normalised = (video[:, 0].float() / 255 - 0.5) / 0.5
    embedded = theirs.embeddings.patch_embeddings(normalised)
    embed = (ours.frames if variant == "factorised_encoder" else ours).embed
    with torch.no_grad():
        assert_close(embed(still(video))[:, :16], embedded)
    moved = torch.cat([video[:, 1:2], video[:, :1]], dim=1).repeat(1, 2, 1, 1, 1)
    with torch.no_grad():
        unlike = (embed(moved)[:, :16] - embedded).abs().max() > 1e-3
    assert unlike == (init == "inflate")  # tubelets of two frames: the second is the central one
    block = ours.frames.blocks[1] if variant == "factorised_encoder" else ours.blocks[1]
    their = theirs.state_dict()
    weight = next(their[n] for n in their if ".1." in n and n.endswith(("fc1.weight", "intermediate.dense.weight")))
    assert torch.equal(block.mlp.fc1.weight, weight)


def test_filters_of_tubelets():
    weight = torch.arange(6.0).view(2, 3)
    assert image_filter(weight, 3, "central_frame").view(2, 3, 3)[:, [0, 2]].abs().sum() == 0
    assert torch.allclose(image_filter(weight, 3, "inflate").view(2, 3, 3).sum(dim=1), weight)


def test_positions_are_resized_and_repeated(image):
    theirs, folder = image
    architecture = TransformerArchitecture(
        width=48, depth=3, num_heads=4, num_frames=4, size=48, patch_size=(2, 8, 8)
    )
    ours = SpaceTimeTransformer(JOINT, architecture)
    start_encoder(Classification(ours, ClassificationConfig(num_classes=7)), folder)
    positions = ours.pos_embed[1:].view(2, 36, 48)
    assert torch.equal(positions[0], positions[1])
    assert torch.equal(ours.pos_embed[0], theirs.embeddings.position_embeddings[0, 0])


def test_frozen_frames_begin_time_with_the_images_last_layers(image):
    _, folder = image
    run = ViViTConfig(**TUBELETS, variant="factorised_encoder", frozen_frames=True, temporal_depth=2)
    ours = run.build()
    start_encoder(ours, folder)
    encoder = ours.encoder
    for i in range(2):
        assert torch.equal(encoder.temporal.blocks[i].mlp.fc1.weight, encoder.frames.blocks[i + 1].mlp.fc1.weight)
    assert not any(p.requires_grad for p in encoder.frames.parameters())


def test_an_image_transformer_of_another_width_is_refused(image):
    ours = timesformer.tiny().objective.build()
    with pytest.raises(UserError, match="other shapes"):
        start_encoder(ours, image[1])
    with pytest.raises(UserError, match="only the factorised_encoder"):
        ViViTConfig(**TUBELETS, frozen_frames=True).build()
    assert vivit.tiny_frozen().objective.frozen_frames


@pytest.mark.parametrize("frames", [5, 23])
def test_windows_over_time_agree_with_longformer(assert_close, frames):
    config = transformers.LongformerConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, attention_window=6,
        max_position_embeddings=40, vocab_size=10, type_vocab_size=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LongformerModel(config, add_pooling_layer=False).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(theirs.embeddings.token_type_embeddings.weight)
    ours = Longformer(
        VTNConfig(
            num_positions=40,
            width=32,
            depth=1,
            temporal_depth=2,
            num_heads=4,
            hidden=64,
            window=6,
            num_frames=39,
            size=32,
            patch_size=16,
            num_classes=2,
        )
    ).eval()
    given = {k.removeprefix("encoder.layer."): v for k, v in theirs.state_dict().items()}
    state = {"pos_embed": given["embeddings.position_embeddings.weight"], "cls_token": torch.randn(32)}
    state |= {f"norm.{k}": given[f"embeddings.LayerNorm.{k}"] for k in ("weight", "bias")}
    for i in range(2):
        for kind in ("weight", "bias"):
            for ours_name, suffix in (("qkv", ""), ("of_first", "_global")):
                parts = [given[f"{i}.attention.self.{p}{suffix}.{kind}"] for p in ("query", "key", "value")]
                state[f"blocks.{i}.attention.{ours_name}.{kind}"] = torch.cat(parts)
            state[f"blocks.{i}.attention.out.{kind}"] = given[f"{i}.attention.output.dense.{kind}"]
            state[f"blocks.{i}.norm1.{kind}"] = given[f"{i}.attention.output.LayerNorm.{kind}"]
            state[f"blocks.{i}.mlp.fc1.{kind}"] = given[f"{i}.intermediate.dense.{kind}"]
            state[f"blocks.{i}.mlp.fc2.{kind}"] = given[f"{i}.output.dense.{kind}"]
            state[f"blocks.{i}.norm2.{kind}"] = given[f"{i}.output.LayerNorm.{kind}"]
    ours.load_state_dict(state)
    steps = torch.randn(2, frames, 32)
    tokens = torch.cat([ours.cls_token.expand(2, 1, -1), steps], dim=1)
    first = torch.zeros(2, frames + 1, dtype=torch.long)
    first[:, 0] = 1
    with torch.no_grad():
        expected = theirs(
            inputs_embeds=tokens,
            attention_mask=torch.ones_like(first),
            global_attention_mask=first,
            position_ids=torch.arange(frames + 1).expand(2, -1),
        ).last_hidden_state
        assert_close(ours(steps)[0], expected)
