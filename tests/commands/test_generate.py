"""Samples reach the file as they are made, and what a person asks for is checked first."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import filmstrip
from colour_videos import CLIP, write_colours
from filmstrip.__main__ import main
from filmstrip.commands.work import generate as command
from filmstrip.commands.work.generate import SamplingRequest, generate, tiled
from filmstrip.data.config import Data
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective, as_float
from filmstrip.runs import generators
from filmstrip.runs.conditions import read_actions, read_condition, read_context
from filmstrip.runs.config import Run, write_config
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.video import read_video

RUN = Run(data=Data(clip=CLIP), objective=ObjectiveConfig(), train=Loop(length=Steps(1)))
INFO = ClipInfo(classes=("left", "right", "3"), num_train=1, directional=True, num_actions=4)


class Brighter(Objective):
    """Every frame is a grey of its own; sample i is told apart by its seed."""

    most, interrupt_at = 40, None

    def sample(self, condition, *, seed, sampling=None):
        self.seen = condition
        if condition.num_frames > self.most:
            raise UserError(f"there are positions for {self.most} frames")
        if self.interrupt_at is not None and seed >= self.interrupt_at:
            raise KeyboardInterrupt
        times = torch.arange(condition.num_frames)[None] * 8 + (seed + torch.arange(condition.batch_size))[:, None]
        made = (times / 255)[:, :, None, None, None].expand(-1, -1, 3, 32, 32).clone()
        if condition.video is not None:
            made[:, : condition.video.shape[1]] = as_float(condition.video)
        return made


class Streaming(Brighter):
    """The same, frame by frame."""

    stop_at = None

    def stream(self, condition, *, seed, sampling=None):
        known = 0 if condition.video is None else condition.video.shape[1]
        for i, frame in enumerate(self.sample(condition, seed=seed).split(1, dim=1)):
            if i == self.stop_at:
                raise KeyboardInterrupt
            if i >= known:
                yield frame


@pytest.fixture
def run_of(monkeypatch, tmp_path):
    def use(objective):
        monkeypatch.setattr(generators, "load_objective", lambda folder, device=None: (objective, RUN))
        monkeypatch.setattr(generators, "load_data_info", lambda folder: INFO)
        return tmp_path

    return use


def greys(path, size=(32, 32)):
    frames = read_video(path).video
    return frames[:, 0, : size[0], : size[1]].float().mean(dim=(1, 2)).tolist()


@pytest.mark.parametrize("kind", [Brighter, Streaming])
def test_all_samples_side_by_side_however_they_are_made(run_of, tmp_path, kind, capsys):
    folder = run_of(kind())
    out = tmp_path / "new" / "sample.mp4"
    assert generate(folder, SamplingRequest(frames=20, num_samples=3, batch_size=2, seed=10, out=out, fps=5)) == 0
    frames = read_video(out)
    assert frames.video.shape == (20, 3, 66, 66) and frames.times[1] == pytest.approx(0.2)
    assert greys(out) == pytest.approx([10 + 8 * t for t in range(20)], abs=2)
    assert frames.video[5, 0, 40:60, 4:28].float().mean() == pytest.approx(52, abs=2), "the third sample has seed 12"
    assert (frames.video[:, :, 36:64, 36:64] > 250).all(), "there is no fourth"
    assert "3 x 20 frames" in capsys.readouterr().out and list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_an_interruption_keeps_what_was_drawn(run_of, tmp_path, suffix):
    generator = Streaming()
    generator.stop_at = 7
    out = tmp_path / f"sample{suffix}"
    with pytest.raises(KeyboardInterrupt) as stop:
        generate(run_of(generator), SamplingRequest(frames=20, num_samples=1, out=out))
    assert stop.value.__notes__ == [f"{out} keeps 7 of 20 frames"]
    if suffix == ".png":
        assert Image.open(out).size == (7 * 34 - 2, 32)
    else:
        assert greys(out) == pytest.approx([8 * t for t in range(7)], abs=2)


def test_a_disk_that_is_full_leaves_the_file_that_was_there(run_of, tmp_path, monkeypatch):
    out = tmp_path / "sample.png"
    out.write_bytes(b"an older one")

    def full(path, rows):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_grid", full)
    with pytest.raises(OSError, match="No space left") as told:
        generate(run_of(Brighter()), SamplingRequest(frames=4, out=out))
    assert not hasattr(told.value, "__notes__") and out.read_bytes() == b"an older one"


@pytest.mark.parametrize("generator", [Brighter(), Streaming()], ids=["whole", "streaming"])
def test_whole_samples_are_kept_until_all_have_begun(run_of, tmp_path, generator):
    generator.interrupt_at = 2
    out = tmp_path / "sample.png"
    with pytest.raises(KeyboardInterrupt):
        generate(run_of(generator), SamplingRequest(frames=4, num_samples=3, batch_size=1, out=out))
    frames = 1 if isinstance(generator, Streaming) else 4
    assert Image.open(out).size == (frames * 34 - 2, 2 * 34 - 2)
    generator.interrupt_at = 0
    with pytest.raises(KeyboardInterrupt) as stop:
        generate(run_of(generator), SamplingRequest(frames=4, out=tmp_path / "none.mp4"))
    assert stop.value.__notes__ == ["nothing was written"] and not (tmp_path / "none.mp4").exists()


def test_a_video_is_continued_from_its_start(run_of, tmp_path):
    given = write_colours(tmp_path / "given.mp4", "red", "blue", frames=8)
    generator, out = Streaming(), tmp_path / "sample.mp4"
    request = SamplingRequest(frames=10, condition=(str(given), "right"), context_frames=3, num_samples=1, out=out)
    assert generate(run_of(generator), request) == 0
    assert generator.seen.video.shape == (1, 3, 3, 32, 32) and generator.seen.label.tolist() == [1]
    shown = read_video(out)
    assert len(shown) == 10 and (shown.video[:3, 0] > 200).all()
    # The file has 8 frames a second, of which the run takes every second one.
    assert shown.times[1] == pytest.approx(1 / 4)
    with pytest.raises(UserError, match="has 16 frames; 9 of them, 2 apart, need 17"):
        read_context(str(given), CLIP, 9)
    with pytest.raises(UserError, match="3 frames are given already, and 3 are asked for"):
        generate(run_of(generator), SamplingRequest(frames=3, condition=(str(given),), context_frames=3, out=out))


def test_classes_by_name_and_number_take_turns():
    condition, _ = read_condition(("right", "0", "3"), RUN, INFO, batch_size=4)
    assert condition.label.tolist() == [1, 0, 2, 1] and condition.num_frames == CLIP.num_frames
    with pytest.raises(UserError, match="no class 7: this run has classes 0 to 2"):
        read_condition(("7",), RUN, INFO, batch_size=1)


def test_a_class_may_have_a_comma_in_its_name(tmp_path):
    info = replace(INFO, classes=("pouring, slowly", "1,2", "right"))
    condition, _ = read_condition(("pouring, slowly", "1,2"), RUN, info, batch_size=2)
    assert condition.label.tolist() == [0, 1] and condition.action is None
    condition, _ = read_condition(("3,1",), RUN, info, batch_size=1)
    assert condition.action.tolist() == [[3, 1]]
    with pytest.raises(UserError, match="did you mean 'pouring, slowly'"):
        read_condition(("pouring, slow",), RUN, info, batch_size=1)
    video = write_colours(tmp_path / "red, then.mp4", "red")
    condition, _ = read_condition((str(video),), RUN, info, batch_size=1)
    assert condition.video.shape[1] == 1


def test_actions_from_a_list_or_a_file(tmp_path):
    np.save(tmp_path / "a.npy", np.array([0, 3, 1]))
    np.savez(tmp_path / "a.npz", actions=np.array([0, 3, 1]), poses=np.zeros(3))
    np.savez(tmp_path / "other.npz", poses=np.zeros(3))
    (tmp_path / "a.json").write_text(json.dumps([0, 3, 1]))
    (tmp_path / "a.csv").write_text("0\n3\n1\n")
    for text in ("0,3,1", *(str(tmp_path / f"a.{kind}") for kind in ("npy", "npz", "json", "csv"))):
        condition, _ = read_condition((text,), RUN, INFO, batch_size=2)
        assert condition.num_frames == 3 and condition.action.tolist() == [[0, 3, 1]] * 2
    moves = ClipInfo(classes=(), num_train=1, directional=True, action_dim=2)
    (tmp_path / "moves.csv").write_text("0.5,1\n-1,2\n")
    assert read_actions(str(tmp_path / "moves.csv"), moves).tolist() == [[0.5, 1], [-1, 2]]
    for text, expected in (
        ("0,4", "0 to 3"),
        ("0.5,1", "whole"),
        ("0,x", "no actions"),
        ("absent.npy", "absent.npy"),
        (str(tmp_path / "other.npz"), "no array 'actions'"),
    ):
        with pytest.raises(UserError, match=expected):
            read_actions(text, INFO)
    with pytest.raises(UserError, match="actions are rows of 2 numbers"):
        read_actions("1,2,3", moves)
    with pytest.raises(UserError, match="4 frames need as many actions, and 3"):
        read_condition(("0,3,1",), RUN, INFO, batch_size=1, num_frames=4)


def test_one_sample_is_shown_as_it_is():
    video = torch.rand(1, 2, 3, 4, 4)
    assert torch.equal(tiled(video), video[0])
    assert tiled(video.expand(5, -1, -1, -1, -1)).shape == (2, 3, 2 * 4 + 2, 3 * 4 + 4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--frames", "41"], "positions for 40"),
        (["--condition", "lefft"], "did you mean 'left'"),
        (["--condition", "absent.mp4"], "absent.mp4"),
        (["--num-samples", "0"], "num_samples is 0"),
        (["--out", "sample.avi"], "sample.avi"),
        (["--sampling.temperature", "-1"], "temperature"),
    ],
)
def test_wrong_requests_are_one_sentence_and_exit_code_2(run_of, capsys, words, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = run_of(Brighter())
    write_config(RUN, folder / "config.json")
    assert main(["generate", str(folder), *words]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.startswith("filmstrip: ")
    assert not list(tmp_path.glob("sample*"))


def test_a_generator_in_python_draws_what_the_command_writes(run_of):
    generator = filmstrip.load_generator(run_of(Streaming()))
    drawn = generator.sample("right", num_samples=3, num_frames=5, seed=7, batch_size=2)
    assert drawn.shape == (3, 5, 3, 32, 32) and generator.classes == INFO.classes
    assert (drawn[:, :, 0, 0, 0] * 255).round().int().tolist() == [
        [7 + i + 8 * t for t in range(5)] for i in range(3)
    ]
    assert generator.objective.seen.label.tolist() == [1], "of the last batch"
    with pytest.raises(UserError, match="did you mean 'right'"):
        generator.sample("righht")


def test_a_run_that_is_no_generator_is_refused(run_of):
    with pytest.raises(UserError, match="is not a generator: provide a run of generation"):
        generate(run_of(Objective()), SamplingRequest())
