"""Published language models that see, in the Hub's layout: fine-tuned from the command line, and written back."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.commands.work.export_language import both
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.connectors import LinearConnector
from filmstrip.runs.loading import load_objective

transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

VOCAB, IMAGE, VIDEO = 64, 61, 62
TEXT = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
TOWER = dict(hidden_size=20, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<|vision_start|>", "<|vision_end|>"]


def qwen2_vl():
    vision = dict(
        depth=2, embed_dim=32, hidden_size=24, mlp_ratio=2, num_heads=4, patch_size=4, temporal_patch_size=2
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 2, 3]}
    text = TEXT | {"num_key_value_heads": 1, "rope_parameters": rope}
    config = transformers.Qwen2VLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO
    )
    return transformers.Qwen2VLForConditionalGeneration(config), {"min_pixels": 64, "max_pixels": 4096}


def llava():
    vision = transformers.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)
    text = transformers.LlamaConfig(**TEXT, num_key_value_heads=2)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return transformers.LlavaForConditionalGeneration(config), {}


def llava_onevision():
    vision = transformers.SiglipVisionConfig(**TOWER, image_size=34, patch_size=8, vision_use_head=False)
    text = transformers.Qwen2Config(**TEXT, num_key_value_heads=2)
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[34, 34], [68, 68]],
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), {}


def video_llama3():
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, patch_size=8)
    text = TEXT | {"model_type": "qwen2", "num_key_value_heads": 2}
    config = transformers.VideoLlama3Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO
    )
    return transformers.VideoLlama3ForConditionalGeneration(config), {"min_pixels": 64, "max_pixels": 4096}


QUERIES = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    encoder_hidden_size=20,
    max_position_embeddings=40,
)


def blip2():
    config = transformers.Blip2Config(
        vision_config=TOWER | {"image_size": 16, "patch_size": 8},
        qformer_config=QUERIES,
        text_config=TEXT | {"model_type": "llama"},
        num_query_tokens=5,
        image_token_index=IMAGE,
    )
    return transformers.Blip2ForConditionalGeneration(config), {}


def instructblip():
    config = transformers.InstructBlipConfig(
        vision_config=TOWER | {"image_size": 16, "patch_size": 8},
        qformer_config=QUERIES | {"vocab_size": 70},
        text_config=TEXT | {"model_type": "llama"},
        num_query_tokens=5,
        image_token_index=IMAGE,
    )
    return transformers.InstructBlipForConditionalGeneration(config), {}


KINDS = {
    "language.qwen2_vl:lora": qwen2_vl,
    "language.llava:v15_7b_lora": llava,
    "language.llava_onevision:lora": llava_onevision,
    "language.video_llama3:lora": video_llama3,
    "language.blip2:stage2_vit_g_vicuna_7b": blip2,
    "language.instructblip:vicuna_7b": instructblip,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    made = NarratedShapes(num_train=6, num_test=2, num_frames=4, size=32)
    return made.generate(tmp_path_factory.mktemp("hub_language") / "shapes")


def save(folder, model, preprocessing, shapes):
    """A folder as ``transformers`` writes it: model, tokenizer, preprocessing."""
    for name, parameter in model.named_parameters():
        norm = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if norm else 0.0, std=0.15)
    model.save_pretrained(folder)
    texts = [
        turn["value"] for line in (shapes / "dialogues.jsonl").open() for turn in json.loads(line)["conversations"]
    ]
    words = [*SPECIALS, *sorted({word for text in texts for word in text.replace("?", " ?").split()})][: IMAGE - 1]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIALS[4:],
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    fast.save_pretrained(folder)
    half = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(half | preprocessing))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def published(request, shapes, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published") / "model"
    return request.param, save(folder, *KINDS[request.param](), shapes)


def arguments(address, shapes, folder, *more):
    short = [
        "--train.steps",
        "2",
        "--train.precision",
        "float32",
        "--data.batch-size",
        "2",
        "--data.num-workers",
        "0",
    ]
    if any(name in address for name in ("qwen2", "onevision", "llama3")):
        short += ["--data.clip.num-frames", "4", "--data.clip.size", "32", "--data.clip.short-side", "32", "32"]
    if "instructblip" in address:
        short += ["--data.clip.num-frames", "1"]
    return [address, "--data", str(shapes), "--init", str(folder), *short, *more]


def test_fine_tuned_from_the_command_line_and_read_by_transformers_again(published, shapes, tmp_path, capsys):
    address, folder = published
    assert (
        main(["train", *arguments(address, shapes, folder, "--out", str(tmp_path / "run"), "--optim.lr", "1e-2")])
        == 0
    )
    own = load_file(tmp_path / "run" / "weights.safetensors")
    places = json.loads((tmp_path / "run" / "frozen.json").read_text())
    assert [place["path"] for place in places["init"]] == [str(folder)]
    adapted = "lora" in address
    trained = {"connector"} if not adapted else {"decoder", "connector"} if "v15" in address else {"decoder"}
    assert {name.partition(".")[0] for name in own} == trained
    assert all("lora_" in name for name in own if name.startswith("decoder."))
    objective, run = load_objective(tmp_path / "run", "cpu")
    out = tmp_path / "back"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--format", "transformers"]) == 0
    assert "largest difference from the network itself" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config == json.loads((folder / "config.json").read_text()) | {
        key: config[key] for key in config if key == "qformer_config"
    }
    theirs = getattr(transformers, config["architectures"][0]).from_pretrained(out).eval()
    found, want = both(objective, theirs, run.data.clip)
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
    before = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    changed, _ = both(objective, before, run.data.clip) if "instructblip" not in address else (found + 1, None)
    assert not torch.allclose(changed, want, atol=1e-3)
    assert (out / "tokenizer.json").exists() and (out / "preprocessor_config.json").exists()
    if adapted:
        assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "peft"), "--format", "peft"]) == 0
        weights = load_file(tmp_path / "peft" / "adapter_model.safetensors")
        modules = {name.rpartition(".")[0] for name, _ in theirs.named_parameters()}
        assert {n.removeprefix("base_model.model.").rpartition(".lora_")[0] for n in weights} <= modules
        told = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == str(folder)
        down, up = (weights[n] for n in sorted(weights)[:2])
        name = sorted(weights)[0].removeprefix("base_model.model.").rpartition(".lora_")[0] + ".weight"
        with torch.no_grad():
            change = dict(theirs.named_parameters())[name] - dict(before.named_parameters())[name]
        torch.testing.assert_close(change, told["lora_alpha"] / told["r"] * up @ down, atol=1e-5, rtol=1e-4)
    else:
        assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "peft"), "--format", "peft"]) == 2


def test_weights_that_do_not_fit_are_named(shapes, tmp_path, capsys):
    torch.manual_seed(0)
    folder = save(tmp_path / "model", *qwen2_vl(), shapes)
    whole = load_file(folder / "model.safetensors")
    gone = "model.layers.1.mlp.down_proj.weight"
    name = "decoder.blocks.1.mlp.out.weight"
    cases = {
        name: {key: x for key, x in whole.items() if key != gone},
        "no place for: model.layers.1.mlp.odd": whole | {"model.layers.1.mlp.odd": whole[gone].clone()},
        f"{name} ((24, 8) there, (24, 40) here)": whole | {gone: whole[gone][:, :8].clone()},
    }
    for told, weights in cases.items():
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        assert (
            main(["train", *arguments("language.qwen2_vl:lora", shapes, folder, "--out", str(tmp_path / "run"))]) == 2
        )
        assert told in capsys.readouterr().err
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_what_cannot_begin_is_refused_before_anything_is_read(shapes, tmp_path, capsys):
    folder = save(tmp_path / "model", *llava(), shapes)
    refused = {
        "is a llava, and this method starts from a qwen2_vl": ["language.qwen2_vl:lora"],
        "no published layout of QwenVLConfig is known": ["language.qwen_vl:stage3"],
        "holds all parts: leave out objective.decoder.width": [
            "language.llava:v15_7b_lora",
            "--objective.decoder.width",
            "8",
        ],
        "data.clip.size is 64 and": ["language.llava:v15_7b_lora", "--data.clip.size", "64"],
        "take 16 tokens, and a conversation has at most 16: nothing is left": [
            "language.llava:v15_7b_lora",
            "--data.reads.max-length",
            "16",
        ],
        "data.reads.visual_tokens is 3, and 1 frames of 32 x 32 pixels take 16": [
            "language.llava:v15_7b_lora",
            "--data.reads.visual-tokens",
            "3",
        ],
    }
    for told, given in refused.items():
        assert main(["train", given[0], "--data", str(shapes), "--init", str(folder), *given[1:]]) == 2, told
        assert told in capsys.readouterr().err
    told = ["train", "language.video_llama3", "--data", str(shapes), "--data.reads.visuals", "2"]
    assert main([*told, "--data.reads.no-timestamps"]) == 2
    assert "tells several videos apart by the times" in capsys.readouterr().err
    assert main(["train", "language.llava", "--data", str(shapes), "--data.reads.timestamps"]) == 2
    assert "has no place for times between frames" in capsys.readouterr().err
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert main(["train", "language.llava:v15_7b_lora", "--data", str(shapes), "--init", str(folder)]) == 2
    assert "brings no tokenizer: give one" in capsys.readouterr().err


def test_adaptation_and_connector_are_chosen_on_the_command_line(capsys):
    def objective(address, *more):
        return run_from(Train, [address, *more], "filmstrip train")[0].objective

    lora = objective("language.llava:v15_7b_stage2", "--objective.adaptation", "lora")
    assert lora.adaptation.rank == 8 and lora.trains == ("connector",)
    ranked = objective("language.llava:v15_7b_stage2", "--objective.adaptation.rank", "3")
    assert ranked.adaptation.rank == 3 and ranked.trains == ("connector",)
    full = objective("language.qwen2_vl:lora", "--objective.adaptation", "full")
    assert full.adaptation is None and full.trains == ("decoder",)
    none = objective("language.llava:v15_7b_lora", "--objective.adaptation=none")
    assert none.adaptation is None and none.trains == ("connector",)
    linear = objective("language.llava:v15_7b_stage1", "--objective.connector", "linear")
    assert linear.connector == LinearConnector()
    assert (
        objective(
            "language.llava", "--objective.connector", "mlp", "--objective.connector.depth", "3"
        ).connector.depth
        == 3
    )
    for arguments, told in {
        (
            "language.llava",
            "--objective.adaptation",
            "dora",
        ): "--objective.adaptation dora: expected one of lora, full",
        ("language.llava", "--objective.connector", "magic"): "expected one of linear, mlp",
        ("language.qwen2_vl", "--objective.connector", "mlp"): "has a connector of its own, TileMergerConfig",
        ("language.siglip", "--objective.adaptation", "lora"): "are for language models that see",
    }.items():
        assert main(["train", *arguments]) == 2
        assert told in capsys.readouterr().err
