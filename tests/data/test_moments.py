"""Queries with moments: annotations of public datasets, features of videos and words, and what samples hold."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from filmstrip.data.annotations.activitynet_captions import read_activitynet_captions
from filmstrip.data.annotations.charades_sta import read_charades_sta
from filmstrip.data.annotations.qvhighlights import read_qvhighlights, write_qvhighlights
from filmstrip.data.config import Data
from filmstrip.data.kinds.moments import Moments, recorded_moments
from filmstrip.data.moments.text import TextEncoder, WordVectors, sentence
from filmstrip.data.moments.types import Query, proper
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.synthetic.video_queries import SENTENCES, VideoQueries
from filmstrip.errors import UserError

SMALL = VideoQueries(
    num_train=3, num_test=2, moments=(2, 3), moment_clips=(2, 4), clip_frames=4, size=32, difficulty=0.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SMALL.generate(tmp_path_factory.mktemp("queries") / "small")


def batches(data, split="test", size=4):
    return list(EvalLoader(open_source(data), data, split, batch_size=size))


def test_files_are_as_long_as_their_queries_say_and_moments_move(folder):
    found = read_qvhighlights(folder)
    assert sorted(found.queries, key=lambda q: q.name) == sorted(SMALL.queries().queries, key=lambda q: q.name)
    assert found.clip_seconds == 0.25 and found.raters == 3
    assert {sample.name for sample in open_path(folder).samples} == {query.video for query in found.queries}
    still, moving = [], []
    for video in {query.video for query in found.queries}:
        with av.open(str(folder / video)) as file:
            frames = np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)]).astype(float)
        mine = [query for query in found.queries if query.video == video]
        assert len(frames) == round(mine[0].seconds * SMALL.fps)
        inside = np.zeros(len(frames) - 1, dtype=bool)
        for start, end in (moment for query in mine for moment in query.moments):
            inside[round(start * SMALL.fps) : round(end * SMALL.fps) - 1] = True
        changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
        moving.append(np.median(changes[inside]))
        still.append(np.median(changes[~inside]))  # where one part follows another, everything changes
    assert np.mean(moving) > np.mean(still)
    for query in found.queries:
        assert query.text in SENTENCES[query.subject]
        assert [(clip.start, clip.end) for clip in query.rated] == [
            (i * 0.25, (i + 1) * 0.25) for i in range(round(query.longest[0] / 0.25), round(query.longest[1] / 0.25))
        ]


def test_a_motion_may_come_again(folder):
    again = replace(SMALL, num_train=30, repeated=True, moments=(4, 4)).queries()
    assert max(len(query.moments) for query in again.queries) > 1
    assert all(len(query.moments) == 1 for query in SMALL.queries().queries)


def test_qvhighlights_is_read_from_its_release(tmp_path):
    line = {
        "qid": 7803,
        "query": "A man walks inside.",
        "vid": "RoripwjYFp8_360.0_510.0",
        "duration": 150,
        "relevant_windows": [[26, 36]],
        "relevant_clip_ids": [13, 14],
        "saliency_scores": [[4, 4, 2], [0, 1, 3]],
    }
    (tmp_path / "highlight_val_release.jsonl").write_text(json.dumps(line) + "\n")
    hidden = {key: line[key] for key in ("query", "vid", "duration")} | {"qid": 1}
    (tmp_path / "highlight_test_release.jsonl").write_text(json.dumps(hidden) + "\n\n")
    (query,) = read_qvhighlights(tmp_path).queries
    assert (query.name, query.split, query.moments, query.seconds) == ("7803", "val", ((26.0, 36.0),), 150.0)
    assert [(clip.start, clip.end, clip.scores) for clip in query.rated] == [
        (26.0, 28.0, (4.0, 4.0, 2.0)),
        (28.0, 30.0, (0.0, 1.0, 3.0)),
    ]
    for text, says in (
        ("{", "not lines of JSON"),
        ('{"qid": 1, "relevant_windows": [[0, 1]]}', "line 1, is not of the form"),
        ('{"qid": 1}', "no query with relevant_windows"),
    ):
        (tmp_path / "wrong").mkdir(exist_ok=True)
        (tmp_path / "wrong" / "train.jsonl").write_text(text)
        with pytest.raises(UserError, match=says):
            read_qvhighlights(tmp_path / "wrong")
    with pytest.raises(UserError, match="holds no queries"):
        read_qvhighlights(tmp_path / "nothing")


def test_charades_sta_takes_durations_from_charades_if_they_are_there(tmp_path):
    (tmp_path / "charades_sta_train.txt").write_text("3MSZA 24.3 30.4##person turn a light on.\n")
    (tmp_path / "charades_sta_test.txt").write_text("AMT7R 0.0 40.5##a person sits.\nAMT7R 5.0 5.0##nothing.\n")
    found = read_charades_sta(tmp_path).queries
    assert [(q.video, q.split, q.moments, q.seconds) for q in found] == [
        ("3MSZA", "train", ((24.3, 30.4),), None),
        ("AMT7R", "test", ((0.0, 40.5),), None),
    ]
    (tmp_path / "Charades_v1_test.csv").write_text("id,subject,length\nAMT7R,X,33.25\n")
    assert read_charades_sta(tmp_path).queries[1].moments == ((0.0, 33.25),)
    (tmp_path / "charades_sta_test.txt").write_text("AMT7R 0.0##a person sits.\n")
    with pytest.raises(UserError, match="lines VIDEO START END##sentence"):
        read_charades_sta(tmp_path)


def test_activitynet_captions_and_its_two_validation_sets(tmp_path):
    entry = {"duration": 82.73, "timestamps": [[0.83, 19.86], [60.0, 40.0]], "sentences": ["A lady. ", " She."]}
    (tmp_path / "train.json").write_text(json.dumps({"v_one": entry}))
    (tmp_path / "val_2.json").write_text(json.dumps({"v_two": entry}))
    found = read_activitynet_captions(tmp_path).queries
    assert [(q.name, q.text, q.split, q.moments) for q in found] == [
        ("v_one_0", "A lady.", "train", ((0.83, 19.86),)),
        ("v_one_1", "She.", "train", ((40.0, 60.0),)),
        ("v_two_0", "A lady.", "test", ((0.83, 19.86),)),
        ("v_two_1", "She.", "test", ((40.0, 60.0),)),
    ]
    (tmp_path / "train.json").write_text(json.dumps({"v_one": {**entry, "sentences": ["A"]}}))
    with pytest.raises(UserError, match="as many sentences as moments"):
        read_activitynet_captions(tmp_path)


def test_moments_lie_within_the_video_in_order():
    assert proper([(8.0, 5.0), (-1.0, 2.0), (3.0, 3.0), (9.0, 12.0), (11.0, 12.0)], 10.0) == (
        (0.0, 2.0),
        (5.0, 8.0),
        (9.0, 10.0),
    )


def test_a_sample_is_a_query_with_its_words_moments_and_ratings():
    reads = Moments(width=8, text_width=12, normalised=False, noise=0.0, max_length=99)
    data = Data(synthetic=SMALL, reads=reads, num_workers=0)
    source = open_source(data)
    (batch, *_) = batches(data)
    assert list(source.kind.specification.faults(batch)) == []
    queries = [sample.queries[0] for sample in source.split("test")]
    for i, query in enumerate(queries[: len(batch["length"])]):
        length = int(batch["length"][i])
        assert length == round(query.seconds / 0.25) and batch["seconds"][i] == query.seconds
        (start, end) = (round(time / 0.25) for time in query.moments[0])
        assert batch["relevant"][i].nonzero()[:, 0].tolist() == list(range(start, end))
        assert batch["saliency"][i, start:end].tolist() == [list(clip.scores) for clip in query.rated]
        assert not batch["saliency"][i, :start].any() and not batch["saliency"][i, end:].any()
        np.testing.assert_allclose(batch["moments"][i, 0] * query.seconds, query.moments[0], rtol=1e-6)
        assert batch["query_length"][i] == len(query.text.split())
        # Where raters liked it less, less of what it is about is seen.
        shown = batch["sequence"][i, start:end].norm(dim=-1)
        liked = batch["saliency"][i, start:end].mean(dim=-1)
        assert shown.argmax() == liked.argmax()
    assert source.info("train").raters == 3 and source.info("train").width == 8


def test_training_samples_have_one_size_and_random_choices():
    videos = replace(SMALL, num_train=20, repeated=True, moments=(4, 6))
    data = Data(
        synthetic=videos,
        reads=Moments(width=8, text_width=8, max_moments=1, max_words=5),
        batch_size=8,
        num_workers=0,
    )
    loader = TrainLoader(open_source(data), data, seed=0)
    batch = next(iter(loader.stream(0)))
    assert batch["sequence"].shape == (8, 75, 8) and batch["query"].shape == (8, 5, 8)
    assert batch["moments"].shape == (8, 1, 2) and (batch["query_of"] == 0).all()
    assert (batch["sequence"].norm(dim=-1).max(dim=1).values - 1).abs().max() < 1e-3


def test_a_sample_can_be_a_video_with_all_its_queries():
    videos = replace(SMALL, moments=(3, 3), num_train=12)
    plain = Data(synthetic=videos, reads=Moments(by="video", width=8, text_width=8), num_workers=0, batch_size=4)
    ordered = replace(plain, reads=replace(plain.reads, in_order=True))
    (batch,) = batches(ordered)
    assert batch["query"].shape == (2, 3, 8) and batch["query_of"].tolist() == [[0, 1, 2]] * 2
    assert (batch["moments"].mean(dim=2).diff(dim=1) > 0).all()
    sample = open_source(plain).split("test")[0]
    words = WordVectors(8, 0)
    expected = torch.stack([sentence(words.words("", query.text)) for query in sample.queries])
    expected = expected / (expected.norm(dim=1, keepdim=True) + 1e-5)
    torch.testing.assert_close(batches(plain)[0]["query"][0], expected)
    fewer = replace(plain, reads=replace(plain.reads, max_queries=2))
    batch = next(iter(TrainLoader(open_source(fewer), fewer, seed=0).stream(0)))
    assert batch["query"].shape == (4, 2, 8) and (batch["query_length"] == 2).all()
    # Each moment is that of its own query: what the video shows there differs from the other's.
    assert (batch["moments"][:, 0] != batch["moments"][:, 1]).any(dim=1).all()


def test_long_videos_are_shortened_and_all_are_resized_if_told():
    data = Data(synthetic=SMALL, reads=Moments(width=8, text_width=8, max_length=10), num_workers=0)
    (batch, *_) = batches(data)
    assert (batch["length"] == 10).all() and batch["timing"][:, 1].mul(10).sub(batch["seconds"]).abs().max() < 1e-9
    resized = replace(data, reads=replace(data.reads, max_length=64, resized=True))
    assert (batches(resized)[0]["length"] == 64).all()


@pytest.fixture
def arrays(tmp_path):
    """Public features of a video and of a query's words, in two folders each."""
    rng = np.random.default_rng(0)
    for name, width in (("slowfast", 6), ("clip", 4)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "one.npz", features=rng.normal(size=(20 + width, width)).astype(np.float16))
        (tmp_path / f"{name}_text").mkdir()
        np.savez(
            tmp_path / f"{name}_text" / "qid3.npz",
            last_hidden_state=rng.normal(size=(7, width)).astype(np.float16),
            pooler_output=np.zeros(width, np.float16),
        )
    (tmp_path / "annotations").mkdir()
    query = Query(name="3", video="one", text="a b c", split="train", moments=((4.0, 8.0),), seconds=48.0)
    write_qvhighlights(replace(SMALL.queries(), queries=(query,), clip_seconds=2.0), tmp_path / "annotations")
    return tmp_path


def test_public_features_stand_side_by_side(arrays, tmp_path):
    reads = Moments(
        annotations=arrays / "annotations",
        more_features=(arrays / "clip",),
        text=(arrays / "slowfast_text", arrays / "clip_text"),
        max_words=5,
    )
    data = Data(path=arrays / "slowfast", reads=reads, num_workers=0)
    (batch,) = batches(data, "train")
    assert batch["sequence"].shape == (1, 24, 10) and batch["query"].shape == (1, 5, 10)
    assert batch["timing"].tolist() == [[1.0, 2.0]]
    rows = batch["sequence"][0]
    for part in (rows[:, :6], rows[:, 6:]):  # each is scaled by itself
        assert (part.norm(dim=1) - 1).abs().max() < 1e-3
    assert batch["relevant"][0].nonzero()[:, 0].tolist() == [2, 3]
    source = open_source(data)
    source.record(tmp_path)
    record = recorded_moments(tmp_path)
    assert (record.step_seconds, record.encoder, record.text_weights) == (2.0, None, None)
    for wrong, says in (
        (replace(reads, text=(arrays / "annotations",)), "holds no arrays of queries"),
        (replace(reads, text_encoder=arrays), "not both"),
    ):
        with pytest.raises(UserError, match=says):
            open_source(replace(data, reads=wrong))
    with pytest.raises(UserError, match="has features of none"):
        other = replace(SMALL.queries().queries[0], video="two")
        write_qvhighlights(replace(SMALL.queries(), queries=(other,)), arrays / "annotations")
        open_source(data)


def test_a_frozen_text_encoder_gives_a_row_for_each_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "shapes", "move", "up", "down"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    network = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes)).eval()
    network.save_pretrained(tmp_path)
    encoder = TextEncoder(tmp_path)
    encoder.learn(["the shapes move up", "down"])
    rows = encoder.words("", "the shapes move up")
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    torch.testing.assert_close(rows, network(ids).last_hidden_state[0].detach(), rtol=0, atol=5e-3)
    assert encoder.words("", "down").shape == (3, 16) and encoder.width == 16
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        TextEncoder(tmp_path / "nothing")


def test_words_have_vectors_of_their_own():
    words = WordVectors(16, 3)
    rows = words.words("", "The shapes, the SHAPES!")
    assert rows.shape == (4, 16) and torch.equal(rows[0], rows[2]) and torch.equal(rows[1], rows[3])
    assert torch.equal(rows, WordVectors(16, 3).words("", "the shapes the shapes"))
    assert words.words("", "?!").shape == (1, 16)


def test_what_is_missing_is_said():
    with pytest.raises(UserError, match="moments need annotations"):
        open_source(Data(reads=Moments()))
    with pytest.raises(UserError, match="more_features stand beside"):
        open_source(Data(synthetic=SMALL, reads=Moments(more_features=(SMALL.queries().root,))))
