"""LLaVA against transformers' LlavaForConditionalGeneration: logits, greedy text, names of weights both ways."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstrip.models.connectors import MlpConnector
from filmstrip.models.llama_layout import decoder_config
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.teachers import TowerConfig
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.llava import LlavaConfig

transformers = pytest.importorskip("transformers")

SIZE, PATCH, VOCAB, PLACE = 32, 8, 60, 57
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
}
TOKENS = (SIZE // PATCH) ** 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small LLaVA of transformers, ours with its weights, and its folder."""
    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
    )
    vision = transformers.CLIPVisionConfig(**VISION)
    theirs = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=PLACE)
    ).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.15)
    folder = tmp_path_factory.mktemp("llava")
    theirs.save_pretrained(folder)
    config = LlavaConfig(
        encoder=TowerConfig(model_type="clip_vision_model", settings=tuple(VISION.items())),
        layer=-2,
        connector=MlpConnector(),
        decoder=decoder_config(json.loads((folder / "config.json").read_text())["text_config"], "it"),
        trains=("connector", "decoder"),
        placeholders=(PLACE,),
    )
    ours = config.build().eval()
    ours.load_state_dict(ours.from_transformers(theirs.state_dict()))
    return ours, theirs, folder


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(0, 50, (2, 9), generator=generator)
    text[0, 2] = text[1, 5] = PLACE
    video = torch.randint(0, 256, (2, 1, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return {"text": text, "text_length": torch.tensor([9, 9]), "video": video}


def inputs_of(ours, batch):
    """A batch as transformers takes it: normalised pixels, and the placeholder once for every visual token."""
    repeats = torch.where(batch["text"] == PLACE, TOKENS, 1)
    rows = [row.repeat_interleave(count) for row, count in zip(batch["text"], repeats)]
    pixels = ours.encoder.normalise(batch["video"])[:, 0]
    return {"input_ids": torch.stack(rows), "pixel_values": pixels, "attention_mask": torch.ones(2, len(rows[0]))}


@torch.no_grad()
def test_logits_agree(models, batch, assert_close):
    ours, theirs, _ = models
    said = theirs(**inputs_of(ours, batch)).logits
    repeats = torch.where(batch["text"] == PLACE, TOKENS, 1)
    before = (repeats.cumsum(dim=1) - repeats)[:, 1:] - 1
    expected = said.gather(1, before[..., None].expand(-1, -1, VOCAB))
    assert_close(ours.logits(ours.see(batch["video"]), batch["text"], batch["text_length"]), expected)


def test_greedy_text_is_the_same(models, batch):
    ours, theirs, _ = models
    visual = ours.see(batch["video"])
    made = torch.stack(list(ours.answer(visual, batch, count=8, sampling=Sampling(temperature=0.0))), dim=1)
    said = theirs.generate(
        **inputs_of(ours, batch),
        do_sample=False,
        min_new_tokens=8,
        max_new_tokens=8,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(made, said[:, -8:])


def test_weights_go_both_ways(models, tmp_path):
    ours, theirs, folder = models
    written = load_file(folder / "model.safetensors")
    _, back = ours.to_transformers()
    assert back.keys() == written.keys()
    assert all(torch.equal(back[name], written[name]) for name in written)
    contiguous = {name: tensor.contiguous() for name, tensor in back.items()}
    save_file(contiguous, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    again = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs.parameters(), strict=True))


def test_older_files_and_those_of_the_authors_are_read(models):
    ours, _, folder = models
    written = load_file(folder / "model.safetensors")
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in written.items()}
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in ours.from_transformers(older).items())
    authors = {
        name.replace("language_model.lm_head", "lm_head")
        .replace("language_model.", "")
        .replace("multi_modal_projector.linear_1", "model.mm_projector.0")
        .replace("multi_modal_projector.linear_2", "model.mm_projector.2"): tensor
        for name, tensor in written.items()
        if not name.startswith("vision_tower.")
    }
    assert all(
        torch.equal(tensor, ours.state_dict()[name]) for name, tensor in ours.from_transformers(authors).items()
    )


def test_a_folder_starts_a_run(models):
    ours, _, folder = models
    fresh = copy.deepcopy(ours)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    start(fresh, folder)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), ours.parameters(), strict=True))
