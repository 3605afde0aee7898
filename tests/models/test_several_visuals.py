"""Several images and videos a conversation: each at its place, whatever else is in the batch."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.kinds.conversations import Conversations, turns_of
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.answers import AnswerAccuracy
from filmstrip.evals.multiple_choice import MultipleChoice
from filmstrip.models.video_language import Visuals
from filmstrip.runs import experiment
from filmstrip.text.boxes import boxes_in
from filmstrip.text.tokenizers import Bytes
from filmstrip.train.lengths import Steps

PLACE, SIZE = 119, 32


@pytest.fixture(scope="module", params=["language.llava", "language.qwen2_vl"])
def model(request):
    torch.manual_seed(0)
    return replace(systems.find(request.param).objective, placeholders=(PLACE,)).build().eval()


@pytest.fixture
def batch():
    """Two images and a video; one video; an image between two videos in a longer text."""
    generator = torch.Generator().manual_seed(2)
    video = torch.randint(0, 256, (3, 9, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    text = torch.randint(0, 100, (3, 12), generator=generator)
    text[0, [1, 2, 7]] = text[2, [3, 4, 10]] = text[1, 5] = PLACE
    frames = torch.tensor([[1, 1, 4], [4, 0, 0], [4, 1, 4]])
    return {"video": video, "frames": frames, "text": text, "text_length": torch.tensor([9, 12, 11])}


@torch.no_grad()
def test_each_stands_at_its_place(model, batch):
    seen = model.watch(batch)
    x, where = model.sequence(seen, batch["text"], batch["text_length"])
    starts = batch["frames"].cumsum(dim=1) - batch["frames"]
    for row in range(3):
        ids, parts, number = batch["text"][row, : batch["text_length"][row]], [], 0
        for i in ids:
            if i == PLACE:
                begin, count = int(starts[row, number]), int(batch["frames"][row, number])
                parts.append(model.see(batch["video"][row : row + 1, begin : begin + count])[0].flatten(0, -2))
                number += 1
            else:
                parts.append(model.decoder.embed(i[None]))
        want = torch.cat(parts)
        assert where.length[row] == len(want)
        torch.testing.assert_close(x[row, : len(want)], want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_other_rows_and_padding_change_nothing(model, batch):
    together = model.logits(model.watch(batch), batch["text"], batch["text_length"])
    for row in range(3):
        length, frames = int(batch["text_length"][row]), batch["frames"][row][batch["frames"][row] > 0]
        one = {
            "video": batch["video"][row : row + 1, : frames.sum()],
            "frames": frames[None],
            "text": batch["text"][row : row + 1, :length],
            "text_length": batch["text_length"][row : row + 1],
        }
        alone = model.logits(model.watch(one), one["text"], one["text_length"])
        torch.testing.assert_close(together[row, : length - 1], alone[0], atol=1e-5, rtol=1e-4)
    one = {**one, "video": batch["video"][1:2, :4], "text": batch["text"][1:2], "text_length": torch.tensor([12])}
    plain = model.logits(model.see(one["video"]), one["text"], one["text_length"])
    torch.testing.assert_close(together[1, :11], plain[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_answers_go_on_from_logits(model, batch):
    seen = model.watch(batch)
    first = next(iter(model.answer(seen, batch, count=1)))
    text = torch.cat([batch["text"], torch.zeros(3, 1, dtype=torch.int64)], dim=1)
    logits = model.logits(seen, text, batch["text_length"] + 1)
    last = batch["text_length"] - 1
    assert torch.equal(first, logits[torch.arange(3), last].argmax(dim=-1))
    assert isinstance(seen * 0, Visuals) and not (seen * 0).tokens.any()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Conversations about two images and a video, about one, and about none; with boxes and a time."""
    root = NarratedShapes(num_train=3, num_test=1, num_frames=6, size=32).generate(
        tmp_path_factory.mktemp("several") / "shapes"
    )
    for i in range(2):
        Image.new("RGB", (40, 32), (200 * i, 10, 90)).save(root / f"{i}.png")
    said = [
        (["0.png", "1.png", "train/00000.mp4"], "<image>\n<image>\nwhich is dark? and in <video>?", "the first", {}),
        ("train/00001.mp4", "where is it at <time>?", "at <box>, then <box>", {"times": [0.25]}),
        (None, "is it far?", "no", {}),
        (["1.png", "0.png"], "which is dark?", "the second", {"options": ["the first", "the second"]}),
    ]
    boxes = {"boxes": [[8, 0, 16, 32], [0, 0, 32, 32]], "width": 32, "height": 32}
    records = []
    for i, (visual, question, answer, more) in enumerate(said):
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        kind = "video" if isinstance(visual, str) else "image"
        shown = {} if visual is None else {kind: visual}
        split = {"split": "test" if i == 3 else "train"}
        records.append({"id": str(i), "conversations": talk, **shown, **more, **split, **(boxes if i == 1 else {})})
    (root / "several.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root / "several.jsonl"


def data_of(file, **changes):
    data = systems.find("language.llava").data
    reads = Conversations(tokenizer=Bytes(), **{"visuals": 3, "visual_tokens": 16, "image_tokens": 4, **changes})
    return replace(data, path=file, synthetic=None, reads=reads, batch_size=3, num_workers=0)


def test_data_hold_each_with_its_frames(file):
    data = data_of(file)
    source = open_source(data)
    rows = next(iter(EvalLoader(source, data, "train", batch_size=3)))
    assert rows["frames"].tolist() == [[1, 1, 4], [4, 0, 0], [4, 0, 0]]
    assert rows["video"].shape == (3, 6, 3, 32, 32)
    assert rows["video"][0, 0, 0].float().mean() < 10 < rows["video"][0, 1, 0].float().mean()
    assert not list(source.kind.specification.faults(rows))
    answer = source.split("train")[1].dialogue.turns[-1].text
    assert answer == "at <box>(250,0),(500,999)</box>, then <box>(0,0),(999,999)</box>"
    assert boxes_in(answer) == [(0.25, 0.0, 0.5, 0.999), (0.0, 0.0, 0.999, 0.999)]
    assert source.split("train")[1].dialogue.turns[0].text.endswith("at 0.2 s?")
    longest = source.samples[0]
    length = len(longest.serialiser.mark(longest.dialogue.turns).ids) - 3 + 4 + 4 + 16
    with pytest.raises(UserError, match="visuals are never cut"):
        open_source(data_of(file, max_length=20))
    assert len(open_source(data_of(file, max_length=length)).samples[0].cut(data)[0].content["text"]) == length - 21


def test_times_stand_before_the_tokens_of_frames(file):
    data = data_of(file, timestamps=True)
    source = open_source(data)
    rows = next(iter(EvalLoader(source, data, "train", batch_size=3)))
    assert not list(source.kind.specification.faults(rows))
    assert rows["times"].shape == (3, 3, 2) and rows["times"][0, :2].unique().tolist() == [-1]
    assert rows["times"][1, 0, 0] == 0 and rows["times"][1, 0, 1] == rows["span"][1, 1]
    last = float(rows["times"][1, 0, 1])
    shown = source.split("train")[1].as_shown(rows, 1).dialogue.turns[0].text
    times = [f"Time {last * i / 3:.1f}s:<video>" for i in range(4)]
    assert shown.startswith(",".join(times) + "\n")
    text = rows["text"][1, : rows["text_length"][1]].tolist()
    assert text == source.samples[1].serialiser.mark(source.split("train")[1].as_shown(rows, 1).dialogue.turns).ids
    assert source.split("train")[0].as_shown(rows, 0).dialogue.turns[0].text.startswith("<image>\n<image>\n")


def test_too_many_visuals_and_boxes_that_are_none_are_named(file, tmp_path):
    with pytest.raises(UserError, match=r"0 has 3 visuals, and a conversation may have 1: allow .*\.visuals 3"):
        open_source(data_of(file, visuals=1))
    record = json.loads(file.read_text().splitlines()[1])
    for change, told in (
        ({"boxes": [[0, 0, 1, 1]]}, "2 places <box> and 1"),
        ({"boxes": [[40, 0, 16, 32], [0, 0, 32, 32]]}, r"no left, top, right and bottom within 32 x 32"),
        ({"times": ["now"]}, "no number of seconds"),
        ({"video": ["a.mp4", "b.mp4"], "times": [0.1]}, None),
    ):
        path = file.with_name("odd.jsonl")
        path.write_text(json.dumps(record | change))
        with pytest.raises(UserError, match=told):
            open_source(data_of(path))


def test_trained_evaluated_and_asked(file, tmp_path, capsys):
    run = systems.find("language.llava:tiny")
    data = data_of(file, visual_tokens=None, image_tokens=None)
    evals = (AnswerAccuracy(blind=False), MultipleChoice())
    short = replace(run.train, length=Steps(2))
    result = experiment.train(replace(run, data=data, train=short, evals=evals), tmp_path / "run")
    assert (result.run.data.reads.visual_tokens, result.run.data.reads.image_tokens) == (16, 4)
    assert result.metrics["count"] == 1 and result.metrics["blind/accuracy"] in (0.0, 1.0)
    files = [str(file.parent / name) for name in ("0.png", "train/00000.mp4")]
    capsys.readouterr()
    assert main(["ask", str(tmp_path / "run"), *files, "is <video> darker than <image>?", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [film["visual_tokens"] for film in told["videos"]] == [4, 16]
    assert main(["ask", str(tmp_path / "run"), *files, "is <video> dark?"]) == 2
    assert "places of 1 visuals, and there are 2" in capsys.readouterr().err
    assert main(["ask", str(tmp_path / "run"), "what is it?"]) == 2
    assert "at least one video or image" in capsys.readouterr().err
    assert main(["ask", str(tmp_path / "run"), "gone.mp4", "what is it?"]) == 2
    assert "gone.mp4" in capsys.readouterr().err


def test_what_has_not_changed_is_left_out_of_films_that_are_asked_about(file, tmp_path, capsys):
    run = systems.find("language.video_llama3:tiny")
    data = data_of(file, visual_tokens=None, image_tokens=None, timestamps=True, max_length=400)
    evals = (AnswerAccuracy(), MultipleChoice())
    result = experiment.train(
        replace(run, data=data, train=replace(run.train, length=Steps(1)), evals=evals), tmp_path / "run"
    )
    assert (result.run.data.reads.visual_tokens, result.run.data.reads.image_tokens) == (16, 16)
    files = [str(file.parent / name) for name in ("train/00000.mp4", "0.png", "train/00001.mp4")]
    capsys.readouterr()
    assert main(["ask", str(tmp_path / "run"), *files, "which moves?", "--json"]) == 0
    films = json.loads(capsys.readouterr().out)["videos"]
    assert films[1]["visual_tokens"] == 16 and all(4 + 3 <= films[i]["visual_tokens"] < 16 for i in (0, 2))
    assert main(["ask", str(tmp_path / "run"), files[0], "what moves?", "--json"]) == 0


def test_places_of_a_question():
    assert turns_of("a?", visuals=2)[0].text == "<video>\n<video>\na?"
    assert turns_of("is <image> as <image>?", visuals=2)[0].text == "is <image> as <image>?"
    with pytest.raises(UserError, match="places of 1 visuals, and there are 0"):
        turns_of("and <image>?", turns_of("a?"))


@torch.no_grad()
@pytest.mark.parametrize("name", ["language.qwen2_vl", "language.video_llama3"])
def test_frames_of_several_sizes_are_seen_as_each_alone(name):
    """A square image, a wide one and a high video, and one image in a batch that is padded; or one video each."""
    torch.manual_seed(0)
    model = replace(systems.find(name).objective, placeholders=(PLACE,)).build().eval()
    assert model.takes_native
    frames = torch.tensor([[1, 1, 4], [1, 0, 0]])
    sizes = torch.tensor([[[32, 32], [16, 48], [48, 16]], [[16, 32], [0, 0], [0, 0]]])
    video = torch.zeros(2, 6, 3, 48, 48, dtype=torch.uint8)
    shown = []
    for row, number in (frames > 0).nonzero().tolist():
        start, count = int(frames[row, :number].sum()), int(frames[row, number])
        height, width = sizes[row, number].tolist()
        clip = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        assert model.size_of(count, height, width) == (height, width)
        video[row, start : start + count, :, :height, :width] = clip
        shown.append(clip[None])
    seen = model.watch({"video": video, "frames": frames, "frame_size": sizes})
    want = Visuals.joined([model.see_among(clip) for clip in shown[:3]], apart=model.frames_apart)
    assert torch.equal(seen.grids[:1, : want.grids.shape[1]], want.grids)
    torch.testing.assert_close(torch.cat(seen.parts(0)), torch.cat(want.parts()), atol=1e-5, rtol=1e-5)
    alone = Visuals.joined([model.see(shown[3])], apart=model.frames_apart)
    torch.testing.assert_close(torch.cat(seen.parts(1)), torch.cat(alone.parts()), atol=1e-5, rtol=1e-5)
    native = {"frame_size": sizes[[0, 1], [2, 0]], "is_patch": torch.ones(2, 6, dtype=torch.bool)}
    if name == "language.video_llama3":  # Qwen2-VL reads single ones in one pass
        one = model.watch({"video": video[:, 2:6].contiguous(), **native})
        assert torch.cat(one.parts(0)).equal(torch.cat(seen.parts(0)[2:]))
