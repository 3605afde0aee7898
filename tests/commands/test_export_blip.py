"""A run of BLIP as a folder of transformers: its models say what the run says, and it starts a run again."""

import dataclasses
import json

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.data.texts import Vocabulary
from filmstrip.files import write_tensors
from filmstrip.runs.config import write_config
from filmstrip.runs.initial_weights import start
from filmstrip.text.tokenizers import Pretrained, Words

transformers = pytest.importorskip("transformers")
MODELS = {"writer": "BlipForConditionalGeneration", "judge": "BlipForImageTextRetrieval"}
TOLD = CaptionInfo(
    classes=(), num_train=6, directional=True, tokenizer=Vocabulary.of(Words().fit(["a red disc"])), max_length=16
)


def saved(folder, tokenizer, **changes):
    """The folder of a run with random weights and a tokenizer."""
    run = systems.find("language.blip:tiny")
    run = run.bound(dataclasses.replace(TOLD, tokenizer=Vocabulary.of(tokenizer)))
    run = dataclasses.replace(run, objective=dataclasses.replace(run.objective, momentum=None, **changes))
    torch.manual_seed(0)
    objective = run.objective.build().eval()
    for name, parameter in objective.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder.mkdir()
    write_config(run, folder / "config.json")
    write_tensors(objective.state_dict(), folder / "weights.safetensors")
    tokenizer.save(folder)
    return objective, run


@pytest.fixture
def words():
    return Words().fit(["a red disc moves left"])


def export(folder, out, *more):
    return main(["export", str(folder), "--out", str(out), "--format", "transformers", *more])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shared", [False, True])
def test_transformers_says_what_the_run_says(tmp_path, words, capsys, kind, shared):
    losses = ("captioning",) if kind == "writer" else ("contrast", "matching")
    objective, run = saved(tmp_path / "run", words, losses=losses, share_self_attention=shared)
    out = tmp_path / "out"
    assert export(tmp_path / "run", out) == 0
    said = capsys.readouterr().out
    assert MODELS[kind] in said and "largest difference from the network itself" in said
    theirs = getattr(transformers, MODELS[kind]).from_pretrained(out).eval()
    assert theirs.config.text_config.sep_token_id == words.end
    image = torch.randint(0, 256, (2, 1, 3, 48, 48), dtype=torch.uint8)
    ids = torch.tensor([[0, *words.encode("a red disc"), words.end]]).expand(2, -1)
    pixels = objective.encoder.embed.normalise(image)[:, 0]
    with torch.no_grad():
        if kind == "writer":
            ids = torch.cat([torch.full((2, 1), objective.begins_caption), ids[:, 1:]], dim=1)
            found = theirs(pixel_values=pixels, input_ids=ids).logits
            expected = objective.caption_logits(objective.see(image), ids)
        else:
            lengths = torch.full((2,), ids.shape[1])
            found = theirs(pixel_values=pixels, input_ids=ids, use_itm_head=False).itm_score
            expected = objective.encode_video(image) @ objective.encode_text(ids, lengths).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    again = run.objective.build()
    start(again, str(out))
    mine = {
        name: value for name, value in objective.named_parameters() if value.requires_grad and name != "log_scale"
    }
    assert mine and all(torch.equal(again.get_parameter(name), value) for name, value in mine.items())


def test_one_that_learnt_all_is_written_as_either(tmp_path, words, capsys):
    saved(tmp_path / "run", words)
    assert export(tmp_path / "run", tmp_path / "first") == 0
    assert export(tmp_path / "run", tmp_path / "other", "--layout", MODELS["judge"]) == 0
    for name, kind in (("first", "writer"), ("other", "judge")):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["architectures"] == [MODELS[kind]]
    capsys.readouterr()
    assert export(tmp_path / "run", tmp_path / "none", "--layout", "BlipForQuestionAnswering") == 2
    assert f"as {MODELS['writer']} and {MODELS['judge']}, not as" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(tmp_path, words, capsys):
    saved(tmp_path / "run", words, losses=("contrast",))
    assert export(tmp_path / "run", tmp_path / "out") == 2
    assert "needs matching, which this run did not learn" in capsys.readouterr().err
    vision = systems.find("language.blip:tiny").objective.vision
    saved(tmp_path / "quick", words, vision=dataclasses.replace(vision, gelu="quick"))
    assert export(tmp_path / "quick", tmp_path / "out") == 2
    assert "transformers has BLIP with a plain image transformer" in capsys.readouterr().err
    saved(tmp_path / "apart", words, starts=(4, 8))
    assert export(tmp_path / "apart", tmp_path / "out") == 2
    assert "transformers has the next one there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_published_tokenizer_goes_with_it(tmp_path):
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "disc"])}
    transformers.BertTokenizerFast(vocab=vocab).save_pretrained(tmp_path / "bert")
    tokenizer = Pretrained(folder=str(tmp_path / "bert")).fit(())
    saved(tmp_path / "run", tokenizer)
    assert export(tmp_path / "run", tmp_path / "out") == 0
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("a red disc", add_special_tokens=False).input_ids == tokenizer.encode("a red disc")
