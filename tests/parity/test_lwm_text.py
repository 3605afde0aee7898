"""LWM-Text against transformers' LLaMA with its rotary base, and started from a folder in the Hub's layout."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start, with_sizes_of_init
from filmstrip.runs.loading import load_objective
from filmstrip.runs.text_models import load_text_model
from filmstrip.systems import find
from filmstrip.systems.language import lwm_text

transformers = pytest.importorskip("transformers")
WORDS = [f"word{chr(97 + i)}" for i in range(20)]


def tokenizer(folder):
    """A published tokenizer of words, in LLaMA's layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "<s>", "</s>", *WORDS]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return len(names)


@pytest.fixture(scope="module", params=[1e4, 5e7])
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    size = tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": request.param},
    )
    network = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    network.save_pretrained(folder)
    return folder, network, request.param


def begun(folder, base):
    """The stage that goes on from a model with this base, or comes to it, started from the folder."""
    preset = find("language.lwm_text:chat_1m" if base == 5e7 else "language.lwm_text:text_32k")
    run = with_sizes_of_init(replace(preset, init=f"hf:{folder}"))
    torch.manual_seed(1)
    model = run.objective.build().eval()
    start(model, run.init)
    return run, model


def test_logits_loss_and_gradients_are_those_of_llama(published):
    folder, network, base = published
    run, model = begun(folder, base)
    assert isinstance(run, type(lwm_text.tiny())) and run.objective.decoder.rope_base == (5e7 if base == 5e7 else 1e6)
    # The stage's own base, where it is another one.
    network.config.rope_parameters = {"rope_type": "default", "rope_theta": run.objective.decoder.rope_base}
    network.model.rotary_emb.__init__(network.config)
    text = torch.randint(3, 23, (2, 40), generator=torch.Generator().manual_seed(0))
    theirs = network(text).logits
    ours = model.decoder.logits(model.decoder(text).hidden)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    learnt = torch.ones_like(text, dtype=torch.bool)
    loss = model({"text": text, "learnt": learnt}).total
    whole = F.cross_entropy(theirs[:, :-1].flatten(0, 1), text[:, 1:].flatten())
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=1e-5)
    loss.backward()
    whole.backward()
    expected = model.from_transformers({name: p.grad for name, p in network.named_parameters()})
    got = {name: p.grad for name, p in model.named_parameters()}
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5, msg=name)
    network.zero_grad()


def test_weights_go_back_as_they_came(published):
    folder, network, base = published
    config, weights = begun(folder, base)[1].to_transformers()
    theirs = network.state_dict()
    assert config["rope_parameters"]["rope_theta"] in (1e6, 5e7)
    assert weights.keys() == theirs.keys() and all(torch.equal(weights[name], theirs[name]) for name in weights)


def test_far_positions_are_those_of_llama(published):
    folder, network, base = published
    if base != 5e7:
        pytest.skip("the last stage reads as far as any")
    _, model = begun(folder, base)
    at = torch.tensor([[0, 1, 130_000, 523_456, 1_048_575]])
    text = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        theirs = network(text, position_ids=at).logits
        ours = model.decoder.logits(model.decoder(text, positions=at).hidden)
    # A frequency's last bit of float32 is 0.06 radians at a million.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    near = model.decoder.logits(model.decoder(text).hidden)
    assert (near - ours).abs().max() > 0.1


def test_a_stage_is_trained_from_a_folder_and_the_next_from_it(published, tmp_path, capsys):
    folder, _, base = published
    data = tmp_path / "books"
    data.mkdir()
    for i in range(5):
        (data / f"{i}.txt").write_text(" ".join(WORDS) + " " + " ".join(WORDS[i:]))
    short = [
        "--data.reads.length",
        "8",
        "--data.reads.min-tokens",
        "1",
        "--data.batch-size",
        "2",
        "--train.steps",
        "1",
    ]
    short += ["--data.num-workers", "0", "--data", str(data)]
    first = ["train", "language.lwm_text:text_32k", "--init", f"hf:{folder}", "--out", str(tmp_path / "32k"), *short]
    if base == 5e7:
        assert main(first) == 2
        assert "rotary base (rope_theta) of 50,000,000" in capsys.readouterr().err
        return
    assert main(first) == 0
    second = [
        "train",
        "language.lwm_text:text_128k",
        "--init",
        str(tmp_path / "32k"),
        "--out",
        str(tmp_path / "128k"),
    ]
    assert main([*second, *short]) == 0
    _, run = load_objective(tmp_path / "128k", "cpu")
    assert run.objective.decoder.rope_base == 1e7 and run.objective.decoder.vocab_size == 23
    assert run.data.reads.tokenizer.folder == str(tmp_path / "32k")
    assert main([*second[:2], "--init", str(tmp_path / "128k"), "--out", str(tmp_path / "x"), *short]) == 2
    with pytest.raises(UserError, match=r"leave out objective\.decoder\.width"):
        with_sizes_of_init(run, {"objective.decoder.width"})


def test_a_run_is_exported_and_read_by_transformers_and_here(published, tmp_path, capsys):
    folder, _, base = published
    if base == 5e7:
        pytest.skip("one export is enough")
    (tmp_path / "book.txt").write_text(" ".join(WORDS * 3))
    run, out = str(tmp_path / "run"), tmp_path / "out"
    short = [
        "--data.reads.length",
        "8",
        "--data.reads.min-tokens",
        "1",
        "--data.batch-size",
        "2",
        "--train.steps",
        "1",
    ]
    train = ["train", "language.lwm_text:text_32k", "--init", f"hf:{folder}", "--data", str(tmp_path / "book.txt")]
    assert main([*train, *short, "--data.num-workers", "0", "--out", run]) == 0
    assert main(["export", run, "--format", "transformers", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert (
        "LlamaForCausalLM of transformers" in said and "rope_theta 1,000,000" in said and "largest difference" in said
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    words = transformers.AutoTokenizer.from_pretrained(out)
    text = torch.tensor([words(" ".join(WORDS[:9])).input_ids])
    ours, _ = load_objective(run, "cpu")
    with torch.no_grad():
        expected = ours.decoder.logits(ours.decoder(text).hidden)
        torch.testing.assert_close(theirs(text).logits, expected, rtol=1e-4, atol=1e-4)
    assert theirs.config.rope_parameters["rope_theta"] == 1e6 and theirs.config.max_position_embeddings == 8
    again = load_text_model(str(out))
    assert all(torch.equal(again.model.state_dict()[name], weight) for name, weight in ours.state_dict().items())
    assert again.serialiser is None and again.tokenizer.encode(WORDS[3]) == words.encode(WORDS[3])[:1]
    # The next stage goes on from it, and another base is refused.
    with_sizes_of_init(replace(find("language.lwm_text:text_128k"), init=f"hf:{out}"))
    with pytest.raises(UserError, match="goes on from a model with 10,000,000"):
        with_sizes_of_init(replace(find("language.lwm_text:text_512k"), init=f"hf:{out}"))
