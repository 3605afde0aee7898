"""Encoders of transformers, against the networks themselves and their own image processors on the same frames."""

import json
import sys

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.frozen_networks import Tower, build_frozen
from filmstrip.objectives.teachers import as_encoder
from filmstrip.protocols import Encoder
from filmstrip.runs.config import from_json, to_json
from filmstrip.runs.encoders import load
from filmstrip.runs.hub import KNOWN, hub_network, load_hub

transformers = pytest.importorskip("transformers")

SIZE = 32
VIT = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIZE, patch_size=8
)
NAFLEX = {key: value for key, value in VIT.items() if key != "image_size"} | {"num_patches": 16}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
JEPA = {key: value for key, value in DINO.items() if key != "image_size"} | {
    "crop_size": SIZE,
    "tubelet_size": 2,
    "frames_per_clip": 4,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
TEXT = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=16)
TOWERS = {"vision_config": VIT, "text_config": TEXT, "projection_dim": 16}

MODELS = {
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", VIT, "SiglipImageProcessorPil"),
    "siglip_towers": ("SiglipModel", "SiglipConfig", {k: TOWERS[k] for k in TOWERS if "_c" in k}, None),
    "siglip2": ("Siglip2VisionModel", "Siglip2VisionConfig", NAFLEX, "Siglip2ImageProcessorPil"),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", VIT, "CLIPImageProcessorPil"),
    "clip_towers": ("CLIPModel", "CLIPConfig", TOWERS, None),
    "dinov2": ("Dinov2Model", "Dinov2Config", DINO, "BitImageProcessorPil"),
    "registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINO | {"num_register_tokens": 3}, None),
    "vjepa2": ("VJEPA2Model", "VJEPA2Config", JEPA, None),
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def save(folder, name, **changes):
    """A small network with random weights in the Hub's layout; returns it."""
    model, config, sizes, _ = MODELS[name]
    torch.manual_seed(0)
    network = getattr(transformers, model)(getattr(transformers, config)(**(sizes | changes))).eval()
    network.save_pretrained(folder)
    preprocessing = {"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255, "size": {"height": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return network


@pytest.fixture
def video():
    return torch.randint(0, 256, (2, 4, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def processed(name, frames):
    """Frames (``n C H W`` uint8) as the family's own image processor hands them to its network."""
    square = {"height": SIZE, "width": SIZE}
    options = {"image_mean": MEAN, "image_std": STD, "return_tensors": "pt"}
    if name == "siglip2":
        options |= {"patch_size": 8, "max_num_patches": 16}
    elif name in ("clip", "dinov2"):
        options |= {"size": {"shortest_edge": SIZE}, "crop_size": square}
    else:
        options |= {"size": square}
    processor = getattr(transformers, MODELS[name][3])()
    images = [frame.permute(1, 2, 0).numpy() for frame in frames]
    return dict(processor(images, **options))


def normalised(video):
    return (video / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "vjepa2"])
def test_image_networks_see_each_frame_as_their_processors_show_it(tmp_path, name, video):
    theirs = save(tmp_path, name)
    encoder, clip = load_hub(str(tmp_path))
    frames = video.flatten(0, 1)
    inputs = {"pixel_values": normalised(frames)} if MODELS[name][3] is None else processed(name, frames)
    with torch.no_grad():
        said = getattr(theirs, "vision_model", theirs)(**inputs)
    found = encoder(video, layers=True)
    prefix = {"clip": 1, "clip_towers": 1, "dinov2": 1, "registers": 4}.get(name, 0)
    patches = said.last_hidden_state[:, prefix:].reshape(2, 64, 24)
    assert tuple(found.grid) == (4, 4, 4) and (clip.num_frames, clip.sampling, clip.size) == (16, "uniform", SIZE)
    torch.testing.assert_close(found.tokens, patches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.of_frames(), said.pooler_output.reshape(2, 4, 24), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled(), found.of_frames().mean(dim=1))
    assert len(found.layers) == 2 and found.layers[0].shape == found.tokens.shape


def test_vjepa2_has_a_moment_for_every_two_frames(tmp_path, video):
    theirs = save(tmp_path, "vjepa2")
    encoder, clip = load_hub(str(tmp_path))
    with torch.no_grad():
        said = theirs(normalised(video), skip_predictor=True).last_hidden_state
    found = encoder(video)
    assert tuple(found.grid) == (2, 4, 4) and found.summary is None and clip.num_frames == 16
    torch.testing.assert_close(found.tokens, said, rtol=1e-4, atol=1e-5)
    assert found.of_frames().shape == (2, 2, 24)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 20}}, 16),
        ({"crop_size": 16, "do_center_crop": False, "size": {"height": 24, "width": 24}}, 24),
        ({"size": {"shortest_edge": 24}}, 24),
        ({}, SIZE),
    ],
)
def test_clips_are_of_the_size_that_the_preprocessing_names(tmp_path, said, size):
    save(tmp_path, "dinov2")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder, clip = load_hub(str(tmp_path))
    assert clip.size == size
    video = torch.zeros(1, 1, 3, size, size, dtype=torch.uint8)
    assert tuple(encoder(video).grid) == (1, size // 8, size // 8)


def test_nothing_in_it_is_trained(tmp_path, video):
    save(tmp_path, "dinov2", hidden_dropout_prob=0.5)
    encoder = load(tmp_path, "cpu").encoder
    assert isinstance(encoder, Encoder)
    encoder.train()
    assert torch.equal(encoder(video).tokens, encoder(video).tokens)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_weights_that_are_missing_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, "clip")
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    dropped = next(name for name in weights if "layers.1.mlp.fc2.weight" in name)
    save_file({name: t for name, t in weights.items() if name != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights.*layers\.1\.mlp\.fc2"):
        load_hub(str(tmp_path))


def test_weights_without_a_place_are_named_but_those_of_the_other_tower_are_left_out(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, "clip_towers")
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    assert any(name.startswith("text_model.") for name in weights)
    load_hub(str(tmp_path))
    save_file(weights | {"vision_model.gate.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no place for: gate\.weight$"):
        load_hub(str(tmp_path))


def test_pickles_and_code_are_refused(tmp_path):
    save(tmp_path, "clip")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    (tmp_path / "evil.py").write_text("raise SystemExit('this ran')")
    load_hub(str(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin.*pickled"):
        load_hub(str(tmp_path))


def test_another_scale_of_pixels_is_refused(tmp_path):
    save(tmp_path, "clip")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"rescale_factor": 1 / 127.5}))
    with pytest.raises(UserError, match="only 1/255"):
        load_hub(str(tmp_path))


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    save(tmp_path, "clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"filmstrip\[language\]"):
        load_hub(str(tmp_path))


def test_short_names_stand_for_models_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"{KNOWN['siglip']} could not be fetched"):
        load("siglip")
    with pytest.raises(UserError, match="one of siglip, "):
        load("siglib")


def test_mobilenet_has_a_token_for_each_position_of_its_last_map(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.MobileNetV2Model(
        transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=64)
    ).eval()
    theirs.save_pretrained(tmp_path)
    encoder, clip = load_hub(str(tmp_path))
    video = torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        said = theirs((video[0] / 255 - 0.5) / 0.5)
    found = encoder(video)
    assert tuple(found.grid) == (2, 2, 2) and clip.size == 64 and encoder.width == found.tokens.shape[2]
    expected = said.last_hidden_state.flatten(2).mT.reshape(1, 8, -1)
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.of_frames()[0], said.pooler_output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_a_network_is_built_from_its_description_alone(tmp_path, name, video):
    save(tmp_path, name)
    loaded, _ = load_hub(str(tmp_path))
    built = build_frozen(hub_network(str(tmp_path)))
    built.load_state_dict(loaded.state_dict())
    torch.testing.assert_close(built(video).tokens, loaded(video).tokens)
    with pytest.raises(UserError, match="no encoder of kind"):
        build_frozen(Tower(model_type="other"))


def test_a_description_survives_json_with_its_whole_numbers(tmp_path):
    save(tmp_path, "clip")
    tower = as_encoder(hub_network(str(tmp_path)))
    again = from_json(json.loads(json.dumps(to_json(tower))))
    assert again == tower and [type(v) for _, v in again.settings] == [type(v) for _, v in tower.settings]
