import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstrip.errors import UserError
from filmstrip.runs.hub import load_hub

transformers = pytest.importorskip("transformers")

TINY = dict(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=48,
)


def save(folder, name="VideoMAEModel", shard_size="5GB", mean=(0.5, 0.4, 0.3), **changes):
    torch.manual_seed(0)
    model = getattr(transformers, name)(transformers.VideoMAEConfig(**(TINY | changes))).eval()
    model.save_pretrained(folder, max_shard_size=shard_size)
    preprocessor = {"image_mean": list(mean), "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model


def tokens_of(model, video, mean):
    pixels = (video.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / 0.2
    return getattr(model, "videomae", model)(pixels).last_hidden_state


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("VideoMAEModel", {}),
        ("VideoMAEForPreTraining", {"use_mean_pooling": False}),
        ("VideoMAEForVideoClassification", {}),
    ],
)
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
def test_folders_that_transformers_writes_load(tmp_path, name, changes, shard_size):
    mean = (0.5, 0.4, 0.3)
    theirs = save(tmp_path, name, shard_size, mean, **changes)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "20KB")
    encoder, clip = load_hub(str(tmp_path))
    video = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(encoder(video).tokens, tokens_of(theirs, video, mean), rtol=1e-4, atol=1e-5)
    assert (clip.num_frames, clip.size) == (4, 32)
    assert not encoder.training


def test_without_preprocessor_the_usual_statistics_hold(tmp_path):
    save(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    encoder, _ = load_hub(str(tmp_path))
    torch.testing.assert_close(encoder.embed.normalise.mean, torch.tensor([0.485, 0.456, 0.406]))


def test_pickled_weights_are_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin.*pickled"):
        load_hub(str(tmp_path))


def test_missing_folder_and_foreign_model(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        load_hub(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no config\.json"):
        load_hub(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="is a bert"):
        load_hub(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load_hub(str(tmp_path))


def test_weights_that_do_not_fit_are_named(tmp_path):
    save(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    dropped = {name: t for name, t in weights.items() if "layer.1.output" not in name}
    save_file(dropped, path)
    with pytest.raises(UserError, match=r"lacks.*blocks\.1\.mlp\.fc2"):
        load_hub(str(tmp_path))
    save_file({name: t[:1].clone() if "intermediate" in name else t for name, t in weights.items()}, path)
    with pytest.raises(UserError, match="do not fit"):
        load_hub(str(tmp_path))
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="damaged"):
        load_hub(str(tmp_path))


def test_shard_names_cannot_leave_the_folder(tmp_path):
    save(tmp_path, shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../elsewhere.safetensors")
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not there"):
        load_hub(str(tmp_path))


def test_hub_names_without_a_network_or_without_sense(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="MCG-NJU/videomae-base could not be fetched"):
        load_hub("hf:MCG-NJU/videomae-base")
    with pytest.raises(UserError, match="write hf:OWNER/NAME"):
        load_hub("hf:not a name")
