"""Encoders and language models from other runs and from the Hub's layout: by reference where they are frozen."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstrip import systems
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import config_in_hub, to_llama
from filmstrip.objectives.language import Adaptation
from filmstrip.runs import experiment
from filmstrip.runs.loading import load_objective
from filmstrip.text.tokenizers import Bytes, Pretrained, Saved, Words
from filmstrip.train.lengths import Steps

WORDS = DecoderConfig(vocab_size=262, width=32, depth=2, num_heads=4, num_kv_heads=2, mlp_dim=48)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The folder of a small random language model in the Hub's layout."""
    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(3)
    write_json(config_in_hub(WORDS), folder / "config.json")
    weights = {name: tensor.contiguous() for name, tensor in to_llama(Decoder(WORDS).state_dict(), WORDS).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = NarratedShapes(num_train=4, num_test=1, num_frames=4, size=32).generate(
        tmp_path_factory.mktemp("data") / "shapes"
    )
    tiny = systems.find("language.llava:tiny").data
    return replace(
        tiny, path=path, synthetic=None, reads=Conversations(tokenizer=Bytes()), batch_size=4, num_workers=0
    )


def run_of(data: Data, **changes):
    run = systems.find("language.llava:tiny")
    objective = replace(run.objective, **{"trains": ("connector",), **changes})
    return replace(run, data=data, objective=objective, train=replace(run.train, length=Steps(2)), evals=())


@pytest.fixture(scope="module")
def first(hub, data, tmp_path_factory):
    """A first stage: the connector alone, before the frozen language model and an encoder that is trained."""
    folder = tmp_path_factory.mktemp("first") / "run"
    experiment.train(run_of(data, decoder_run=str(hub), trains=("encoder", "connector")), folder)
    return folder


def own_names(folder):
    return {name.partition(".")[0] for name in load_file(folder / "weights.safetensors")}


def test_a_frozen_language_model_is_kept_by_reference(first, hub):
    assert own_names(first) == {"encoder", "connector"}
    places = json.loads((first / "frozen.json").read_text())
    assert list(places) == ["objective.decoder_run"] and places["objective.decoder_run"][0]["path"] == str(hub)
    objective, run = load_objective(first, "cpu")
    assert run.objective.decoder == WORDS
    weights = to_llama(objective.decoder.state_dict(), WORDS)
    assert all(torch.equal(weights[name], tensor) for name, tensor in load_file(hub / "model.safetensors").items())


def test_the_next_stage_starts_from_it_and_adapts(first, hub, data, tmp_path):
    before, _ = load_objective(first, "cpu")
    stage = run_of(
        data, decoder_run=str(hub), encoder_run=str(first), trains=("connector",), adaptation=Adaptation(rank=2)
    )
    experiment.train(replace(stage, init=str(first)), tmp_path / "second")
    names = set(load_file(tmp_path / "second" / "weights.safetensors"))
    assert {name.partition(".")[0] for name in names} == {"connector", "decoder"}
    assert all(".lora_" in name for name in names if name.startswith("decoder."))
    objective, _ = load_objective(tmp_path / "second", "cpu")
    for name, value in before.encoder.state_dict().items():
        assert torch.equal(objective.encoder.state_dict()[name], value), name
    assert not torch.equal(objective.connector.layers[0].weight, before.connector.layers[0].weight)


def test_all_of_it_can_be_trained_from_the_stage_before(first, hub, data, tmp_path):
    stage = run_of(data, decoder_run=str(hub), trains=("encoder", "connector", "decoder"))
    experiment.train(replace(stage, init=str(first)), tmp_path / "whole")
    assert own_names(tmp_path / "whole") == {"encoder", "connector", "decoder"}
    again = run_of(data, decoder_run=str(tmp_path / "whole"), encoder_run=str(tmp_path / "whole"))
    experiment.train(again, tmp_path / "again")
    assert own_names(tmp_path / "again") == {"connector"}
    given, _ = load_objective(tmp_path / "whole", "cpu")
    taken, _ = load_objective(tmp_path / "again", "cpu")
    assert torch.equal(given.decoder.embed.weight, taken.decoder.embed.weight)


def test_parts_that_come_from_nowhere_or_do_not_fit_are_refused(first, hub, data, tmp_path):
    with pytest.raises(UserError, match="encoder is frozen and untrained"):
        experiment.train(run_of(data, decoder_run=str(hub)), tmp_path / "a")
    with pytest.raises(UserError, match="either trained or adapted"):
        run_of(data, trains=("decoder",), adaptation=Adaptation()).objective.build()
    with pytest.raises(UserError, match="nothing is trained"):
        run_of(data, trains=()).objective.build()
    words = replace(WORDS, vocab_size=100)
    write_json(config_in_hub(words), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"the tokenizer has 262 ids and the language model .* 100"):
        experiment.train(run_of(data, decoder_run=str(tmp_path), encoder_run=str(first)), tmp_path / "b")


def test_clips_and_tokens_are_those_of_the_parts_unless_others_are_given(first, hub):
    def asked(*options):
        return run_from(Train, ["language.llava:v15_7b_stage1", *options], "train")[0].data

    there = systems.find("language.llava:tiny").data.clip
    taken = asked("--objective.encoder-run", str(first), "--objective.decoder-run", str(hub))
    assert taken.clip == there and taken.reads.tokenizer == Pretrained(folder=str(hub))
    assert asked("--objective.decoder-run", str(first)).reads.tokenizer == Saved(folder=str(first))
    own = asked(
        "--objective.encoder-run",
        str(first),
        "--data.clip.num-frames",
        "6",
        "--objective.decoder-run",
        str(hub),
        "--data.reads.tokenizer",
        "words",
    )
    assert own.clip == replace(there, num_frames=6) and own.reads.tokenizer == Words()
