"""VDT: what it is given in training and in sampling, and samples by the command."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.protocols import Condition, Grid
from filmstrip.systems.generation.vdt import PUBLISHED, GuidedSampling, draw_given
from filmstrip.video import open_video, read_clips

FEW = GuidedSampling(steps=3)
GRID = Grid(16, 8, 8)


def built(address="generation.vdt:tiny", **changes):
    run = systems.find(address)
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    objective = replace(run.objective, **changes).build().eval()
    for parameter in objective.transformer.parameters():  # gates and outputs start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return objective, draw_batch(run.data, size=2, seed=0)


@pytest.fixture(scope="module")
def vdt():
    return built()


def given(*tasks, count=400, **changes):
    config = replace(systems.find("generation.vdt:large_256").objective, tasks=tasks, **changes)
    return draw_given(torch.arange(count), GRID, config)


def test_each_task_gives_the_published_frames():
    frames = {
        "generate": [],
        "predict": list(range(8)),
        "backwards": list(range(8, 16)),
        "interpolate": [0, 4, 8, 12],
    }
    for task, expected in frames.items():
        drawn = given((task, 1.0))
        wanted = torch.zeros(16, dtype=torch.bool)
        wanted[expected] = True
        assert torch.equal(drawn, wanted[:, None, None].expand(400, *GRID)), task
    one = given(("animate", 1.0))
    assert (one[:, :, 0, 0].sum(dim=1) == 1).all() and one[:, :, 0, 0].any(dim=0).all()
    some = given(("frames", 1.0), count=2000)
    assert some[..., 0, 0].float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(some, some[..., :1, :1].expand_as(some))


def test_what_is_completed_is_a_rectangle_in_the_middle_frames():
    hidden = ~given(("complete", 1.0), count=2000)
    whole = hidden.flatten(2).any(dim=2)
    starts, ends = whole.float().argmax(dim=1), 15 - whole.flip(1).float().argmax(dim=1)
    assert set(starts.tolist()) == {0, 1, 2, 3} and set(ends.tolist()) == {12, 13, 14, 15}
    frame = hidden[:, 8]
    rows, columns = frame.any(dim=2), frame.any(dim=1)
    assert torch.equal(frame, rows[:, :, None] & columns[:, None])
    height, width = rows.sum(dim=1), columns.sum(dim=1)
    assert (height * width).float().mean().item() == pytest.approx(32, abs=3)
    assert height.min() < 5 and height.max() == 8 and rows.any(dim=0).all() and not rows.all(dim=0).any()


def test_tasks_are_drawn_as_often_as_they_weigh():
    drawn = given(("generate", 1.0), ("predict", 3.0), count=4000)
    assert drawn[:, 0, 0, 0].float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert sum(weight for _, weight in PUBLISHED) == pytest.approx(1)
    mixed = given(*PUBLISHED, count=6000)
    by_frames = (mixed.flatten(2).all(dim=2) | ~mixed.flatten(2).any(dim=2)).all(dim=1)
    assert by_frames.float().mean().item() == pytest.approx(0.8, abs=0.02)


@torch.no_grad()
def test_what_is_given_is_seen_clean_and_not_learnt(monkeypatch):
    objective, batch = built(tasks=(("predict", 1.0),))
    latents, seen = objective.latents(batch["video"]), []

    def spy(x, time, context):
        seen.append(x)
        return torch.zeros_like(x)

    monkeypatch.setattr(objective, "predict", spy)
    loss = objective(batch)
    assert torch.equal(seen[0][:, :2], latents[:, :2]) and not torch.equal(seen[0][:, 2:], latents[:, 2:])
    assert loss.metrics["given"].item() == pytest.approx(2 / 8)

    def wrong_there(x, time, context):
        return torch.cat([1e3 * torch.ones_like(x[:, :2]), torch.zeros_like(x[:, 2:])], dim=1)

    monkeypatch.setattr(objective, "predict", wrong_there)
    assert objective(batch).total.item() == pytest.approx(loss.total.item(), rel=1e-5)


@torch.no_grad()
def test_samples_keep_what_is_given_and_depend_on_it(vdt):
    objective, batch = vdt
    video = batch["video"].float() / 255
    plain = objective.sample(Condition(batch_size=2, num_frames=8), seed=3, sampling=FEW)
    assert plain.shape == (2, 8, 3, 32, 32) and 0 <= plain.min() <= plain.max() <= 1
    alone = objective.sample(Condition(batch_size=1, num_frames=8), seed=4, sampling=FEW)
    torch.testing.assert_close(plain[1:], alone, rtol=1e-4, atol=1e-4)
    first = objective.sample(Condition(batch_size=2, num_frames=8, video=video[:, :2]), seed=3, sampling=FEW)
    known = torch.zeros(1, 8, 1, 1, dtype=torch.bool)
    known[:, :2] = True
    asked = Condition(batch_size=2, num_frames=8, video=video, known=known.expand(2, -1, -1, -1))
    assert torch.equal(objective.sample(asked, seed=3, sampling=FEW), first)  # other frames are not looked at
    assert torch.equal(first[:, :2], video[:, :2]) and not torch.allclose(first[:, 2:], plain[:, 2:])
    known = torch.ones(2, 8, 32, 32, dtype=torch.bool)
    known[:, 2:6, :16, 8:24] = False
    filled = objective.sample(Condition(batch_size=2, num_frames=8, video=video, known=known), seed=3, sampling=FEW)
    assert torch.equal(filled[known[:, :, None].expand_as(filled)], video[known[:, :, None].expand_as(video)])
    assert not torch.allclose(filled[:, 3, :, :16, 8:24], video[:, 3, :, :16, 8:24])
    places = objective.given_places(known)
    assert places.shape == (2, 8, 1, 8, 8) and not places[:, 3, 0, :4, 2:6].any() and places[:, 3, 0, 4:].all()


@torch.no_grad()
def test_guidance_goes_away_from_the_empty_text():
    objective, batch = built("generation.vdt:tiny_text")
    text = {name: batch[name] for name in ("text", "text_length")}
    asked = Condition(batch_size=2, num_frames=8, text=(text,))
    one_step = [replace(FEW, steps=1, guidance=scale) for scale in (0.0, 1.0, 3.0)]
    empty, told, guided = (objective.sample(asked, seed=0, sampling=sampling) for sampling in one_step)
    untold = objective.sample(Condition(batch_size=2, num_frames=8), seed=0, sampling=one_step[1])
    torch.testing.assert_close(empty, untold, rtol=1e-4, atol=1e-4)
    assert (guided - untold).abs().mean() > 1.5 * (told - untold).abs().mean() > 0


def test_what_cannot_be_made_is_refused(vdt):
    objective, batch = vdt
    asked = Condition(batch_size=2, num_frames=8)
    for changes, sampling, message in (
        ({"num_frames": 6}, FEW, "clips of 8 frames, no other number: got 6"),
        ({"label": torch.tensor([0, 1])}, FEW, "no classes"),
        ({"text": ({},)}, FEW, "without texts"),
        ({}, replace(FEW, guidance=2.0), "guidance strengthens a text"),
        ({}, Sampling(), "not by Sampling"),
        ({"video": batch["video"][:, :1, :, :16, :16]}, FEW, r"32 x 32 pixels, and was given \(16, 16\)"),
    ):
        with pytest.raises(UserError, match=message):
            objective.sample(replace(asked, **changes), seed=0, sampling=sampling)
    own = systems.find("generation.vdt:tiny").objective
    with pytest.raises(UserError, match="VQVAE3DConfig makes codes"):
        replace(own, tokenizer=systems.find("tokenizers.vqvae3d:tiny").objective).build()
    with pytest.raises(UserError, match="leave out tasks"):
        replace(own, tasks=(("generate", 0.0),)).build()
    with pytest.raises(UserError, match="alternating blocks come in pairs"):
        replace(own, transformer=replace(own.transformer, attention="alternating", depth=3)).build()
    with pytest.raises(UserError, match="no multiple of patches"):
        replace(own, transformer=replace(own.transformer, patch_size=(1, 3, 3))).build()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(folder / "cache"))
        words = ("--train.steps", "2", "--data.num-workers", "0", "--data.synthetic.train-per-class", "2")
        assert main(["train", "generation.vdt:tiny", "--out", str(folder / "run"), *words]) == 0
    return folder / "run"


def test_the_command_completes_a_film(run_folder, tmp_path, capsys):
    film = sorted(run_folder.parent.glob("cache/**/test/*/*.mp4"))[0]
    out = tmp_path / "made.mp4"
    words = [str(run_folder), "--condition", str(film), "--num-samples", "1", "--sampling.steps", "2"]
    assert main(["generate", *words, "--given", "0", "7", "--out", str(out)]) == 0
    assert "1 x 8 frames" in capsys.readouterr().out
    with open_video(film) as decoder:
        source = read_clips(decoder, num_frames=8, stride=2, size=32, short_side=(32, 32), sampling="dense", end=1.0)
    with open_video(out) as decoder:
        made = read_clips(decoder, num_frames=8, stride=1, size=32, short_side=(32, 32), sampling="dense")
    errors = (source[0].video.float() - made[0].video.float()).abs().mean(dim=(1, 2, 3))
    assert errors[0] < 8 and errors[7] < 8 < errors[1:7].min()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--given", "0"), "name its file as well"),
        (("--condition", "FILM", "--given", "9"), "frame 9 is given of samples of 8, whose last one is 7"),
        (("--text", "a disc"), "trained without text"),
        (("--frames", "4"), "clips of 8 frames"),
    ],
)
def test_requests_that_do_not_fit_are_refused(run_folder, capsys, words, message):
    film = str(sorted(run_folder.parent.glob("cache/**/test/*/*.mp4"))[0])
    assert main(["generate", str(run_folder), *(film if word == "FILM" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_other_generators_refuse_frames_in_the_middle(tmp_path, synthetic_cache, capsys):
    words = ("--train.steps", "1", "--data.num-workers", "0", "--data.synthetic.train-per-class", "2")
    assert main(["train", "generation.videogpt:tiny", "--out", str(tmp_path / "run"), *words]) == 0
    with pytest.raises(UserError, match="goes on from first frames"):
        from filmstrip.runs.generators import load_generator, stream_samples

        generator = load_generator(tmp_path / "run", "cpu")
        known = torch.ones(1, 4, 1, 1, dtype=torch.bool)
        asked = Condition(batch_size=1, num_frames=4, video=torch.zeros(1, 4, 3, 32, 32), known=known)
        next(stream_samples(generator.objective, asked))


def test_solvers_are_those_of_diffusion(vdt):
    objective, _ = vdt
    asked = Condition(batch_size=1, num_frames=8)
    midpoint = objective.sample(asked, seed=0, sampling=DiffusionSampling(steps=2, solver="midpoint"))
    assert not torch.equal(midpoint, objective.sample(asked, seed=0, sampling=DiffusionSampling(steps=2)))
