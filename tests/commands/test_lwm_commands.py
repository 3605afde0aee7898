"""LWM from the command line: trained on captioned videos, asked about a film, and drawing from text."""

import json

import pytest

from filmstrip.__main__ import main
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.runs.loading import load_objective
from filmstrip.video.decode import open_video

QUICK = ["--train.steps", "2", "--data.num-workers", "0", "--data.batch-size", "2"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return NarratedShapes(num_train=8, num_test=2, num_frames=4, size=32).generate(tmp_path_factory.mktemp("s") / "a")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A language model of bytes, and its texts."""
    folder = tmp_path_factory.mktemp("texts")
    for i in range(4):
        (folder / f"{i}.txt").write_text("the red circle moves left, and the blue square stays. " * 6)
    out = tmp_path_factory.mktemp("text") / "run"
    sizes = ["--objective.decoder.width", "32", "--objective.decoder.depth", "1", "--objective.decoder.mlp-dim", "32"]
    bytewise = ["--data.reads.tokenizer", "bytes", "--data.reads.length", "64"]
    assert (
        main(["train", "language.lwm_text", "--data", str(folder), "--out", str(out), *sizes, *bytewise, *QUICK]) == 0
    )
    return folder, out


@pytest.fixture(scope="module")
def asked(shapes, tmp_path_factory):
    """A model that learnt from questions about the videos."""
    out = tmp_path_factory.mktemp("chat") / "run"
    data = str(shapes / "dialogues.jsonl")
    assert main(["train", "language.lwm:tiny_chat", "--data", data, "--out", str(out), *QUICK]) == 0
    return out


def test_a_film_is_asked_about_with_any_number_of_frames(asked, shapes, capsys):
    film = str(next((shapes / "test").glob("*.mp4")))
    assert main(["ask", str(asked), film, "What moves?", "--frames", "3", "--max-tokens", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 3 and said["visual_tokens"] == 3 * 65 and said["answers"][0]["question"] == "What moves?"
    reads = load_objective(asked, "cpu")[1].data.reads
    assert reads.question_first and reads.visual_tokens == 2 * 65 and reads.image_tokens == 65


def test_a_language_model_of_text_learns_pairs_and_draws(shapes, text, tmp_path, capsys):
    texts, begun = text
    out, rest = tmp_path / "run", ["--data.reads.tokenizer", "bytes", "--data.reads.max-length", "256"]
    mixture = ["--data", str(shapes), str(texts), "--data.weights", "84", "16", *rest, *QUICK]
    train = ["train", "language.lwm:tiny", "--init", str(begun), *mixture]
    assert main([*train, "--out", str(out)]) == 0
    model, run = load_objective(out, "cpu")
    assert run.objective.decoder.width == 32 and model.decoder.vision_embed.embedding_dim == 32
    capsys.readouterr()
    film = tmp_path / "film.mp4"
    command = [
        "generate",
        str(out),
        "--text",
        "a red circle",
        "--frames",
        "2",
        "--num-samples",
        "1",
        "--out",
        str(film),
    ]
    assert main([*command, "--sampling.guidance", "2"]) == 0
    with open_video(film) as decoder:
        assert decoder.info.num_frames == 2 and decoder.info.fps == pytest.approx(4)
    refused = ["train", "language.lwm:tiny", "--init", str(begun), "--out", str(tmp_path / "x"), *mixture]
    assert main([*refused, "--objective.no-untrained-tokenizer"]) == 2
    assert "which codes no videos: name the tokenizer" in capsys.readouterr().err
