import csv

import pytest
import torch

from colour_videos import CLIP, MeanColour, write_colours
from filmstrip.commands.work import encode as encode_module
from filmstrip.commands.work.encode import encode_files, encode_part, find_source
from filmstrip.data.features import FeatureSource, FeatureWriter, sort_index
from filmstrip.errors import UserError
from filmstrip.protocols import Features, check_video
from filmstrip.runs.encoders import VideoEncoder

transformers = pytest.importorskip("transformers")

COLOURS = ("red", "green", "blue")


@pytest.fixture
def files(tmp_path):
    return [write_colours(tmp_path / f"{colour}.mp4", colour) for colour in COLOURS]


def encode(files, out, encoder=None, **options):
    model = VideoEncoder(encoder or MeanColour(), CLIP)
    return encode_files(model, files, out, num_workers=0, **options)


def test_pooled_features_say_what_was_seen(files, tmp_path):
    assert encode(files, tmp_path / "out", num_clips=3, batch_size=2) == 0
    source = FeatureSource(tmp_path / "out")
    assert len(source) == 9
    for i, row in enumerate(source.rows):
        assert row.name == str(files[i // 3]) and (row.t, row.h, row.w) == (1, 1, 1)
        assert source[i].shape == (1, 3)
        assert source[i][0].argmax() == i // 3 and source[i].max() > 0.8
        assert row.end - row.start == pytest.approx(6 / 8)
    starts = [row.start for row in source.rows[:3]]
    assert starts == sorted(set(starts))


def test_token_features_keep_their_grid(files, tmp_path):
    encode(files[:1], tmp_path / "out", level="patch")
    source = FeatureSource(tmp_path / "out")
    assert source[0].shape == (4, 3) and tuple(source.rows[0].grid) == (4, 1, 1)


def test_frame_features_are_the_encoders_own_summary_where_it_has_one(files, tmp_path):
    class Summing(MeanColour):
        def forward(self, video, layers=False):
            seen = super().forward(video, layers)
            return Features(seen.tokens, seen.grid, summary=seen.tokens + 1)

    for name, model in (("plain", MeanColour()), ("summing", Summing())):
        encode(files[:1], tmp_path / name, model, level="frame")
        encode(files[:1], tmp_path / f"{name} clip", model, level="clip")
    plain, summing = FeatureSource(tmp_path / "plain"), FeatureSource(tmp_path / "summing")
    assert tuple(plain.rows[0].grid) == tuple(summing.rows[0].grid) == (4, 1, 1)
    torch.testing.assert_close(summing[0], plain[0] + 1)
    torch.testing.assert_close(FeatureSource(tmp_path / "summing clip")[0], summing[0].mean(dim=0, keepdim=True))


def test_clips_can_be_cut_otherwise_than_the_encoder_says(files, tmp_path):
    encode(files[:1], tmp_path / "out", level="frame", num_frames=6, sampling="uniform")
    row = FeatureSource(tmp_path / "out").rows[0]
    assert row.t == 6 and row.end - row.start > 1.5
    with pytest.raises(UserError, match="use another folder"):
        encode(files[:1], tmp_path / "out", level="frame")


def test_parts_of_the_work_make_the_whole_in_any_order_and_after_a_crash(files, tmp_path):
    model = VideoEncoder(MeanColour(), CLIP)
    for part in (1, 0, 1):
        encode_part(model, files, tmp_path / "out", part=part, parts=2, num_workers=0)
    sort_index(tmp_path / "out", [str(file) for file in files])
    encode(files, tmp_path / "whole")
    assert model.encoder.calls == 2
    shared, whole = FeatureSource(tmp_path / "out"), FeatureSource(tmp_path / "whole")
    assert [row.name for row in shared.rows] == [row.name for row in whole.rows]
    assert torch.equal(shared.read(range(3)), whole.read(range(3)))


def test_two_processes_that_do_not_know_of_each_other_lose_nothing(tmp_path):
    one, other = (FeatureWriter(tmp_path, about={}) for _ in range(2))
    one.add("a", torch.ones(1, 1, 2))
    other.add("b", torch.ones(1, 1, 2) * 2)
    other.add("a", torch.ones(1, 1, 2) * 3)
    one.flush()
    other.flush()
    source = FeatureSource(tmp_path)
    assert [row.name for row in source.rows] == ["a", "b"]
    assert source.read(range(2))[:, 0, 0].tolist() == [1, 2]


@pytest.mark.slow
def test_several_processes_share_the_work_and_go_on_with_it(files, tmp_path):
    folder = tmp_path / "encoder"
    small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16)
    transformers.Dinov2Model(transformers.Dinov2Config(**small)).save_pretrained(folder)
    files[1].write_bytes(b"no video")
    options = {"level": "frame", "num_workers": 0}
    assert encode_files(folder, files[2:], tmp_path / "out", **options) == 0
    assert encode_files(folder, files, tmp_path / "out", processes=2, **options) == 1
    assert encode_files(folder, files, tmp_path / "whole", **options) == 1
    shared, whole = FeatureSource(tmp_path / "out"), FeatureSource(tmp_path / "whole")
    assert [row.name for row in shared.rows] == [row.name for row in whole.rows] == [str(files[0]), str(files[2])]
    torch.testing.assert_close(shared.read(range(2)), whole.read(range(2)))
    with (tmp_path / "out" / "unreadable.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [str(files[1])]


def test_goes_on_where_it_stopped_and_loses_nothing(files, tmp_path):
    class Interrupted(MeanColour):
        def forward(self, video, layers=False):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().forward(video, layers)

    with pytest.raises(KeyboardInterrupt):
        encode(files, tmp_path / "out", Interrupted(), batch_size=1)
    assert [row.name for row in FeatureSource(tmp_path / "out").rows] == [str(f) for f in files[:2]]
    rest, all_at_once = MeanColour(), MeanColour()
    encode(files, tmp_path / "out", rest, batch_size=1)
    encode(files, tmp_path / "whole", all_at_once, batch_size=1)
    assert (rest.calls, all_at_once.calls) == (1, 3)
    one, other = FeatureSource(tmp_path / "out"), FeatureSource(tmp_path / "whole")
    assert [row.name for row in one.rows] == [row.name for row in other.rows]
    assert torch.equal(one.read(range(3)), other.read(range(3)))
    assert encode(files, tmp_path / "out") == 0


def test_features_reach_the_disk_while_the_work_goes_on(files, tmp_path, monkeypatch):
    monkeypatch.setattr(encode_module, "SECONDS_AT_RISK", 0.0)
    on_disk = []

    class Looking(MeanColour):
        def forward(self, video, layers=False):
            if self.calls:
                on_disk.append(len(FeatureSource(tmp_path / "out")))
            return super().forward(video, layers)

    encode(files, tmp_path / "out", Looking(), batch_size=1)
    assert on_disk == [1, 2]


def test_other_weights_or_clips_do_not_go_into_the_same_folder(files, tmp_path):
    encode(files[:1], tmp_path / "out")
    with pytest.raises(UserError, match="use another folder"):
        encode(files, tmp_path / "out", MeanColour(2.0))
    with pytest.raises(UserError, match="use another folder"):
        encode(files, tmp_path / "out", num_clips=2)


def test_bad_files_are_listed_and_the_rest_is_encoded(files, tmp_path):
    files[1].write_bytes(b"no video")
    assert encode(files, tmp_path / "out") == 1
    assert [row.name for row in FeatureSource(tmp_path / "out").rows] == [str(files[0]), str(files[2])]
    with (tmp_path / "out" / "unreadable.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [str(files[1])]


def test_clips_that_the_encoder_does_not_take_are_refused(files, tmp_path):
    class Pairs(MeanColour):
        def forward(self, video, layers=False):
            check_video(video, multiple=(2, 1, 1))
            return super().forward(video, layers)

    with pytest.raises(UserError, match=r"clips of 3 frames of 32 x 32 pixels: .* not a multiple of patches"):
        encode(files, tmp_path / "out", Pairs(), num_frames=3)
    assert encode(files, tmp_path / "out", Pairs()) == 0  # nothing of the refused ones was left
    with pytest.raises(UserError, match=r"17 clips are asked for .* at most 16 frames"):
        encode(files, tmp_path / "more", num_clips=17)
    with pytest.raises(UserError, match="encode needs videos"):
        encode([], tmp_path / "none")
    assert not (tmp_path / "more").exists() and not (tmp_path / "none").exists()


def test_collections_keep_labels_and_splits(tmp_path):
    for split in ("train", "test"):
        for colour in ("blue", "red"):
            write_colours(tmp_path / "set" / split / colour / "a.mp4", colour)
    encode([tmp_path / "set"], tmp_path / "out")
    source = FeatureSource(tmp_path / "out")
    assert sorted((r.name, r.label, r.split) for r in source.rows) == [
        ("test/blue/a.mp4", 0, "test"),
        ("test/red/a.mp4", 1, "test"),
        ("train/blue/a.mp4", 0, "train"),
        ("train/red/a.mp4", 1, "train"),
    ]
    assert all(source[i][0].argmax() == (2, 0)[row.label] for i, row in enumerate(source.rows))


def test_what_cannot_be_found_or_is_given_twice(files, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_source([tmp_path / "absent.mp4"])
    with pytest.raises(UserError, match="given twice"):
        find_source([files[0], files[0]])
    write_colours(tmp_path / "more" / "red.mp4", "red")
    write_colours(tmp_path / "others" / "red.mp4", "red")
    names = [sample.name for sample in find_source([files[0], tmp_path / "more", tmp_path / "others"]).samples]
    assert names == [str(tmp_path / name) for name in ("red.mp4", "more/red.mp4", "others/red.mp4")]
