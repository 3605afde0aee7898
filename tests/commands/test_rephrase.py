"""``filmstrip rephrase``: sentences are varied by beam search or at random, and nothing is asked twice."""

import math

import pytest
import torch

from filmstrip.__main__ import main
from filmstrip.commands.work import rephrase as rephrasing
from filmstrip.commands.work.caption_table import read_captions
from filmstrip.data.layouts.manifest import open_manifest
from filmstrip.nn.sampling import Sampling
from filmstrip.systems.language.lavila.rephraser import diverse, open_paraphraser, rephrased, sampled


@pytest.fixture(scope="module")
def paraphraser(tmp_path_factory):
    """A small random T5 and a tokenizer of a few words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", "paraphrase", ":", "the", "a", "red", "blue", "box", "disc", "moves", "goes"]
    words += ["left", "right"]
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(words), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model.save_pretrained(folder)
    return folder, model


@torch.no_grad()
def test_texts_are_written_side_by_side(paraphraser):
    _, model = paraphraser
    ids = torch.tensor([[3, 4, 5, 7, 9, 1], [3, 4, 6, 8, 1, 0]])
    mask = (ids != 0).long()
    said = diverse(model, ids, mask, groups=3, diversity=0.7, count=5)
    for b in range(2):
        texts, totals = [[0], [0], [0]], [0.0, 0.0, 0.0]
        for _ in range(5):
            taken = []
            for g, text in enumerate(texts):
                if text[1:] and text[-1] == 1:
                    continue
                out = model(
                    input_ids=ids[b : b + 1], attention_mask=mask[b : b + 1], decoder_input_ids=torch.tensor([text])
                )
                likely = out.logits[0, -1].log_softmax(dim=0)
                for token in taken:
                    likely[token] -= 0.7
                text.append(int(likely.argmax()))
                totals[g] += float(likely.max())
                taken.append(text[-1])
        for g, text in enumerate(texts):
            kept = said.ids[b, g].tolist()[: len(text) - 1]
            assert kept == text[1:]
            assert math.isclose(float(said.scores[b, g]), totals[g] / len(kept), rel_tol=1e-3)
    plain = model.generate(ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=5)
    assert torch.equal(said.ids[:, 0, : plain.shape[1] - 1], plain[:, 1:])


@torch.no_grad()
def test_texts_are_drawn_for_themselves(paraphraser):
    _, model = paraphraser
    ids = torch.tensor([[3, 4, 5, 7, 9, 1], [3, 4, 6, 8, 1, 0]])
    mask, sampling = (ids != 0).long(), Sampling(temperature=1.0, top_p=0.9)
    said = sampled(model, ids, mask, groups=4, sampling=sampling, seeds=torch.tensor([3, 9]), count=6)
    alone = sampled(model, ids[1:], mask[1:], groups=4, sampling=sampling, seeds=torch.tensor([9]), count=6)
    assert torch.equal(said.ids[1, :, : alone.ids.shape[2]], alone.ids[0])
    assert len({tuple(text) for text in said.ids[0].tolist()}) > 1
    begun = torch.nn.functional.pad(said.ids[0, :, :-1], (1, 0))  # it starts with padding
    repeated = ids[:1].expand(4, -1), mask[:1].expand(4, -1)
    out = model(input_ids=repeated[0], attention_mask=repeated[1], decoder_input_ids=begun)
    likely = out.logits.log_softmax(dim=-1).gather(2, said.ids[0][..., None])[..., 0]
    inside = (said.ids[0] == 1).cumsum(dim=1) - (said.ids[0] == 1).long() == 0
    torch.testing.assert_close(said.scores[0], (likely * inside).sum(dim=1) / inside.sum(dim=1), rtol=1e-3, atol=1e-4)


def test_sentences_are_said_in_other_words(paraphraser):
    folder, _ = paraphraser
    texts = ["the red box moves left", "a blue disc goes right", "the red box moves left"]
    found = rephrased(texts, open_paraphraser(folder), keep=2, groups=6, max_tokens=6)
    assert [len(each) for each in found] == [2, 2, 2] and found[0] == found[2]
    assert all(len({text, *each}) == 3 for text, each in zip(texts, found))


@pytest.fixture
def told(tmp_path):
    """A manifest with a caption that is there twice, and one of another split."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    rows = (
        "a.mp4,train,the red box moves left\nb.mp4,test,a blue disc goes right\nc.mp4,train,the red box moves left\n"
    )
    (tmp_path / "manifest.csv").write_text("path,split,caption\n" + rows)
    return tmp_path / "manifest.csv"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("drawn", [(), ("--temperature", "1", "--top-p", "0.9")])
def test_captions_of_a_table_are_rephrased(paraphraser, told, suffix, drawn, capsys):
    folder, _ = paraphraser
    out = told.parent / "more" / f"more.{suffix}"
    out.parent.mkdir()
    command = ["rephrase", str(folder), str(told), "--out", str(out), "--number", "2", "--groups", "6"]
    command += ["--max-tokens", "6", "--split", "train", *drawn]
    assert main(command) == 0
    first, other, again = read_captions(out)
    assert "4 paraphrases of 1 captions" in capsys.readouterr().out
    assert first.web == ("the red box moves left",) and len(set(first.synthetic) - set(first.web)) == 2
    assert again.synthetic == first.synthetic and other.synthetic == ()
    assert open_manifest(out).samples[0].text == (*first.web, *first.synthetic)
    assert not list(out.parent.glob(".*"))


def test_rephrasing_resumes(paraphraser, told, monkeypatch, capsys):
    folder, _ = paraphraser
    out, asked = told.parent / "more.parquet", []

    def stopping(texts, *rest, **options):
        if asked and asked[-1] == "stop":
            raise KeyboardInterrupt
        asked.append("stop")
        return rephrased(texts, *rest, **options)

    def noting(texts, *rest, **options):
        asked.extend(texts)
        return rephrased(texts, *rest, **options)

    command = ["rephrase", str(folder), str(told), "--out", str(out), "--groups", "4", "--max-tokens", "4"]
    command += ["--batch-size", "1", "--temperature", "1"]
    monkeypatch.setattr(rephrasing, "rephrased", stopping)
    assert main(command) == 130
    assert "keeps 1 captions: the same command resumes" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--seed", "1"]) == 2
    assert "with another model or other settings" in capsys.readouterr().err
    monkeypatch.setattr(rephrasing, "rephrased", noting)
    assert main(command) == 0
    assert asked == ["stop", "a blue disc goes right"]
    whole = told.parent / "whole.parquet"
    assert main([*command[:4], str(whole), *command[5:]]) == 0
    assert read_captions(whole) == read_captions(out)


def test_what_cannot_be_rephrased_is_said(paraphraser, told, capsys):
    folder, _ = paraphraser
    for model, *rest, message in (
        (folder, "--split", "valid", "no row of the split 'valid'"),
        (folder, "--top-p", "0.9", "nothing is drawn at a temperature of 0"),
        (told.parent / "nothing", "is not a folder"),
        (told.parent, "holds no encoder-decoder of text"),
    ):
        assert main(["rephrase", str(model), str(told), "--out", str(told.parent / "x.csv"), *rest]) == 2
        assert message in capsys.readouterr().err
