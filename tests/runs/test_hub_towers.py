"""A folder of SigLIP or CLIP as ``transformers`` writes it: evaluated as it is, and the start of a run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from filmstrip import systems
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.evals.zero_shot import ZeroShot
from filmstrip.runs.experiment import evaluate, train
from filmstrip.runs.loading import load_objective
from filmstrip.text.tokenizers import Pretrained, Saved, Words
from filmstrip.train.lengths import Steps

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

TEXT = {
    "vocab_size": 80,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 34,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    set_ = NarratedShapes(num_train=24, num_test=8, num_frames=1, size=48)
    return set_.generate(tmp_path_factory.mktemp("towers") / "shapes")


def test_a_run_starts_another_with_its_tokenizer(shapes, tmp_path, caplog):
    sizes = [f"--objective.{tower}.{size}" for tower in ("vision", "text") for size in ("width=16", "depth=1")]
    short = ["--data", str(shapes), *sizes, "--train.steps", "1", "--data.batch-size", "4", "--data.num-workers", "0"]
    first, _ = run_from(Train, ["language.siglip", *short], "filmstrip train")
    train(replace(first, evals=()), tmp_path / "first")
    again, _ = run_from(Train, ["language.siglip", *short, "--init", str(tmp_path / "first")], "filmstrip train")
    assert again.data.reads.tokenizer == Saved(folder=str(tmp_path / "first"))
    assert "text is read by the tokenizer of" in caplog.text
    train(replace(again, evals=()), tmp_path / "second")
    files = [(tmp_path / name / "text_tokenizer.json").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]
    own = ["--init", str(tmp_path / "first"), "--data.reads.tokenizer", "words"]
    other, _ = run_from(Train, ["language.siglip", *short, *own], "filmstrip train")
    assert other.data.reads.tokenizer == Words()


@pytest.fixture(params=["siglip", "clip", "siglip2"])
def folder(request, tmp_path, shapes):
    torch.manual_seed(0)
    if request.param == "siglip":
        config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
        model = transformers.SiglipModel(config)
    elif request.param == "siglip2":
        vision = {**VISION, "num_patches": 16}
        config = transformers.Siglip2Config(text_config=TEXT, vision_config=vision)
        model = transformers.Siglip2Model(config)
    else:
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
        model = transformers.CLIPModel(config)
    model.save_pretrained(tmp_path / "model")
    captions = " ".join((shapes / "manifest.csv").read_text().replace('"', " ").replace(",", " ").split())
    words = dict.fromkeys(["<pad>", "<s>", "</s>", "<unk>", *sorted(set(captions.split()) - {"["})][:80])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    return tmp_path / "model", model.eval(), request.param


def test_a_folder_is_evaluated_on_captions_and_on_classes(folder, shapes):
    path, _, _ = folder
    values = dict(evaluate(str(path), (Retrieval(at=(8,)), ZeroShot()), data=shapes))
    assert values["retrieval/text_to_video_r8"] == values["retrieval/video_to_text_r8"] * 0 + 1
    assert 0 <= values["zero_shot/top1"] <= 1


def test_a_folder_starts_a_run_with_its_sizes_and_its_tokenizer(folder, shapes, tmp_path):
    path, model, kind = folder
    arguments = [f"language.{kind}", "--data", str(shapes), "--init", str(path), "--train.steps", "1"]
    run, _ = run_from(Train, [*arguments, "--data.batch-size", "4", "--data.num-workers", "0"], "filmstrip train")
    assert run.objective.vision.size == run.data.clip.size == 32 and run.objective.text.vocab_size == 80
    out = tmp_path / "run"
    objective = train(run, out).objective
    assert (out / "text_tokenizer.json").exists()
    vector = model.text_model.final_layer_norm.weight
    assert torch.allclose(objective.text.norm.weight, vector, atol=0.01)
    assert run.data.reads.max_length == 16 and run.data.reads.start == (kind == "clip")


def test_a_folder_of_siglip_2_chooses_what_another_learns_from(folder, shapes, tmp_path):
    path, model, kind = folder
    if kind == "clip":
        pytest.skip("it has no logits of single pairs")
    run = systems.find("language.siglip2")
    reads = Captioned(tokenizer=Pretrained(folder=str(path)), max_length=16, start=False)
    data = replace(run.data, path=shapes, reads=reads, batch_size=4, num_workers=0)
    objective = replace(run.objective, decoder=None, curator_run=str(path))
    short = replace(run, data=data, objective=objective, train=replace(run.train, length=Steps(1)), evals=())
    short = short.on_clip(replace(data.clip, num_frames=1, size=32, short_side=(32, 32)))
    trained = train(short, tmp_path / "run").objective
    vector = trained.curator.text.norm.weight
    assert torch.equal(vector, model.text_model.final_layer_norm.weight)
    kept = safe_open(tmp_path / "run" / "weights.safetensors", "pt").keys()
    assert "encoder.pos_embed" in kept and not [name for name in kept if name.startswith("curator.")]
    loaded, _ = load_objective(tmp_path / "run", "cpu")
    assert torch.equal(loaded.encoder.pos_embed, trained.encoder.pos_embed)
    path.rename(tmp_path / "elsewhere")  # training alone needs it
    load_objective(tmp_path / "run", "cpu")
