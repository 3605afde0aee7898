"""From videos to a folder of tokens, to the same videos again, and to a prior that cannot tell the difference."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool2d

import filmstrip
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work.decode import decode_clips
from filmstrip.data.config import DataInfo
from filmstrip.data.features import FeatureSource, FeatureWriter
from filmstrip.data.reading.views import read_views
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.evals.throughput import Throughput
from filmstrip.protocols import Tokens
from filmstrip.runs import experiment
from filmstrip.runs.config import Run, read_config, write_config
from filmstrip.runs.loading import load_objective, save_data_info
from filmstrip.runs.tokenizers import load_tokenizer, start_tokenizer, tokenizer_fingerprint, with_tokenizer
from filmstrip.train.lengths import Steps
from filmstrip.video import read_video


def save_tokenizer(folder: Path, run: str | Run = "tokenizers.vqvae3d:tiny", seed: int = 0) -> Path:
    run = systems.find(run) if isinstance(run, str) else run
    torch.manual_seed(seed)
    objective = run.objective.build()
    folder.mkdir(parents=True)
    write_config(run, folder / "config.json")
    save_file(objective.state_dict(), folder / "weights.safetensors")
    save_data_info(DataInfo(classes=(), num_train=1, directional=False), folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Just long enough for one clip each, 8 frames of which every second is taken, and of its size."""
    return Motions(train_per_class=1, test_per_class=1, num_frames=15, size=32).generate(
        tmp_path_factory.mktemp("videos") / "motions"
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("runs") / "tokenizer")


@pytest.fixture(scope="module")
def tokens(videos, tokenizer, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "ids"
    assert main(["encode", str(tokenizer), str(videos), "--level", "ids", "--out", str(out)]) == 0
    return out


def prior(tokenizer: Path, data: Path):
    run = systems.find("generation.videogpt:tiny")
    return replace(
        run,
        data=replace(run.data, path=data, batch_size=4, num_workers=0),
        objective=replace(run.objective, tokenizer_run=str(tokenizer), width=32, depth=1, num_heads=2),
        train=replace(run.train, length=Steps(3)),
        evals=(MultiView(),),
    )


def test_ids_are_small_and_those_of_the_tokenizer(tokens, tokenizer, videos):
    source, model = FeatureSource(tokens), filmstrip.load_tokenizer(tokenizer, "cpu")
    assert source[0].dtype == torch.int16 and source[0].shape == (4 * 8 * 8, 1)
    assert all(row.label == list(MOTIONS).index(row.name.split("/")[1]) for row in source.rows)
    assert len(source) == 16
    row = source.rows[5]
    shown = read_video(videos / row.name).video[::2]
    with torch.no_grad():
        expected = model.encode(shown[None]).ids[0]
    assert torch.equal(source[5].flatten().long(), expected)


def test_a_prior_learns_the_same_from_tokens_as_from_videos(tokens, tokenizer, videos, tmp_path):
    weights = []
    for data in (videos, tokens):
        folder = tmp_path / data.name
        experiment.train(replace(prior(tokenizer, data), evals=()), folder)
        weights.append(load_file(folder / "weights.safetensors"))
    assert any(not torch.equal(weights[0][name], 0 * weights[0][name]) for name in weights[0])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_evaluations_that_need_video_are_left_out_of_training_and_refused_alone(tokens, tokenizer, tmp_path, caplog):
    result = experiment.train(prior(tokenizer, tokens), tmp_path / "run")
    assert not result.metrics and "MultiView needs video" in caplog.text
    with pytest.raises(UserError, match="give other data"):
        list(experiment.evaluate(tmp_path / "run"))
    assert list(experiment.evaluate(tmp_path / "run", (Throughput(batch_size=1, rounds=1),)))


def test_tokens_of_another_tokenizer_are_not_learnt_from(tokens, tmp_path):
    other = save_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="made by another tokenizer"):
        experiment.train(prior(other, tokens), tmp_path / "run")


def test_decoding_gives_the_reconstructions_at_their_speed(tokens, tokenizer, videos, tmp_path):
    assert main(["decode", str(tokenizer), str(tokens), "--out", str(tmp_path / "out")]) == 0
    source, model = FeatureSource(tokens), load_tokenizer(tokenizer, "cpu")
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.mp4"))
    assert [str(path) for path in written] == sorted(row.name for row in source.rows)
    made = read_video(tmp_path / "out" / source.rows[3].name)
    with torch.no_grad():
        expected = model.decode(Tokens(source.rows[3].grid, ids=source[3].flatten()[None].long()))[0]
    # An untrained tokenizer's video is noise, of which mp4 keeps the brightness and less of the colour.
    seen, wanted = (avg_pool2d(video.mean(dim=1), 4) for video in (made.video / 255, expected))
    assert torch.corrcoef(torch.stack([seen.flatten(), wanted.flatten()]))[0, 1] > 0.8
    # The motions have 16 frames a second; clips take every second one.
    assert made.times[1] == pytest.approx(1 / 8)


def test_decoding_goes_on_and_several_clips_are_numbered(tokenizer, videos, tmp_path):
    file = next((videos / "test" / "left").iterdir())
    words = ["encode", str(tokenizer), str(file), "--level", "ids", "--clips", "2", "--out", str(tmp_path / "ids")]
    assert main(words) == 0
    decode = ["decode", str(tokenizer), str(tmp_path / "ids"), "--out", str(tmp_path / "out")]
    assert main(decode) == 0
    clips = sorted((tmp_path / "out").rglob("*.mp4"))
    assert [clip.name for clip in clips] == [f"{file.stem}-000.mp4", f"{file.stem}-001.mp4"]
    clips[0].unlink()
    before = clips[1].stat().st_mtime_ns
    assert main(decode) == 0
    assert clips[0].exists() and clips[1].stat().st_mtime_ns == before


def test_what_cannot_be_encoded_or_decoded(tokens, tokenizer, videos, tmp_path, capsys):
    def refused(*words):
        assert main([str(word) for word in words]) == 2
        return capsys.readouterr().err

    out = ("--out", tmp_path / "out")
    assert "use --level ids" in refused("encode", tokenizer, videos, "--level", "latents", *out)
    assert "--level ids" in refused("encode", tokenizer, videos, *out)
    assert "provide the videos themselves" in refused("encode", tokenizer, tokens, "--level", "ids", *out)
    continuous = save_tokenizer(tmp_path / "continuous", "tokenizers.vae_kl:tiny")
    assert "use --level latents" in refused("encode", continuous, videos, "--level", "ids", *out)
    assert "another tokenizer" in refused("decode", continuous, tokens, *out)

    def broken(name, ids, **about):
        with FeatureWriter(tmp_path / name, about=about) as writer:
            writer.add("a", ids, grid=FeatureSource(tokens).rows[0].grid)
        return tmp_path / name

    high = broken("high", torch.full((1, 256, 1), 64, dtype=torch.int16), level="ids")
    assert "0..63; 64..64 were given" in refused("decode", tokenizer, high, *out)
    books = broken("books", torch.zeros(1, 256, 2, dtype=torch.int16), level="ids")
    assert "ids of shape (B, 256)" in refused("decode", tokenizer, books, *out)
    features = broken("features", torch.zeros(1, 256, 2), level="patch")
    assert "which cannot be decoded" in refused("decode", tokenizer, features, *out)


def test_continuous_latents_survive_the_folder(videos, tmp_path):
    continuous = save_tokenizer(tmp_path / "continuous", "tokenizers.vae_kl:tiny")
    file = next((videos / "test" / "left").iterdir())
    assert main(["encode", str(continuous), str(file), "--level", "latents", "--out", str(tmp_path / "f")]) == 0
    assert FeatureSource(tmp_path / "f")[0].is_floating_point()
    assert main(["decode", str(continuous), str(tmp_path / "f"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 1


@pytest.mark.parametrize("kind", ["ids", "latents"])
def test_tokens_of_variable_length_are_written_shown_and_decoded(videos, tmp_path, kind):
    address = "tokenizers.elastictok:tiny"
    run = systems.find(address)
    if kind == "latents":
        run = replace(run, objective=replace(run.objective, codebook=None))
    elastic = save_tokenizer(tmp_path / "elastic", run)
    encode = ["encode", str(elastic), str(videos / "test"), "--level", kind, "--out"]
    # Untrained, it rebuilds little: a target between the errors of its blocks makes lengths differ.
    model = load_tokenizer(elastic, "cpu")
    files = sorted((videos / "test").rglob("*.mp4"))
    shown = torch.cat([read_views(file, model.clip).video for file in files])
    with torch.no_grad():
        whole = model.decode(model.encode(shown))
    error = (whole - shown / 255).square().unflatten(1, (2, 2)).mean(dim=(2, 3, 4, 5)).median().item()
    out = tmp_path / "tokens"
    assert main([*encode, str(out), "--error", str(error)]) == 0

    source = FeatureSource(out)
    lengths = source.lengths(range(len(source)))
    assert lengths.shape == (8, 2) and lengths.min() >= 4 and lengths.float().std() > 0
    assert [row.n for row in source.rows] == lengths.sum(dim=1).tolist(), "only what counts takes space"
    place = 3
    with torch.no_grad():
        expected = model.encode(read_views(videos / "test" / source.rows[place].name, model.clip).video, error)
    assert torch.equal(lengths[place], expected.lengths[0])
    stored = source[place].flatten() if kind == "ids" else source[place]
    assert torch.equal(stored, (expected.ids if kind == "ids" else expected.latents)[0].to(stored.dtype))

    counts = json.loads((out / "token_use.json").read_text())
    assert counts["tokens_per_block"] == 32 and counts["mean"] == pytest.approx(lengths.float().mean().item())
    assert counts["videos"][source.rows[place].name][0]["lengths"] == lengths[place].tolist()
    page = (out / "token_use.html").read_text()
    assert page.count("<svg") == 8

    assert main(["decode", str(elastic), str(out), "--out", str(tmp_path / "videos")]) == 0
    assert len(list((tmp_path / "videos").rglob("*.mp4"))) == 8
    with torch.no_grad():
        assert torch.allclose(decode_clips(model, source, [place]), model.decode(expected), atol=1e-5)

    assert main([*encode, str(out)]) == 2, "with another error, or none, it is another folder"


def test_variable_length_where_it_does_not_belong(tokens, tokenizer, videos, tmp_path, capsys):
    words = ["encode", str(tokenizer), str(videos), "--level", "ids", "--error", "0.01", "--out", str(tmp_path / "o")]
    assert main(words) == 2
    assert "VQVAE3D cannot be told an --error to meet" in capsys.readouterr().err
    objective = systems.find("generation.videogpt:tiny").objective.build()
    with pytest.raises(UserError, match="does not model: encode without --error"):
        objective.codes({"tokens": torch.zeros(1, 256, dtype=torch.int64), "lengths": torch.ones(1, 2)})


def test_a_regressor_codes_in_its_own_lengths_and_its_tokenizer_decodes_them(videos, tmp_path, capsys):
    elastic = save_tokenizer(tmp_path / "elastic", "tokenizers.elastictok:tiny")
    run = systems.find("tokenizers.elastic_regressor:tiny")
    folder = save_tokenizer(tmp_path / "regressor", run)
    regressor, _ = load_objective(folder, "cpu")
    start_tokenizer(regressor, replace(run, objective=replace(run.objective, tokenizer_run=str(elastic))))
    save_file(regressor.state_dict(), folder / "weights.safetensors")
    encode = ["encode", str(folder), str(videos / "test"), "--level", "ids", "--out", str(tmp_path / "tokens")]
    assert main(encode) == 0
    source = FeatureSource(tmp_path / "tokens")
    place = 2
    video = read_views(videos / "test" / source.rows[place].name, load_tokenizer(folder, "cpu").clip).video
    assert torch.equal(source.lengths([place]), regressor.lengths(video)) and source.lengths([place]).max() < 32
    assert main(["decode", str(elastic), str(tmp_path / "tokens"), "--out", str(tmp_path / "videos")]) == 0
    encode[-1] = str(tmp_path / "other")
    assert main([*encode, "--error", "0.01"]) == 2
    assert "ElasticRegressor cannot be told an --error" in capsys.readouterr().err


def test_the_run_of_a_prior_stands_for_its_tokenizer(tokenizer, tmp_path):
    prior = systems.find("generation.videogpt:tiny")
    of_tokenizer = replace(prior, objective=replace(prior.objective, tokenizer_run=str(tokenizer)))
    folder = save_tokenizer(tmp_path / "prior", with_tokenizer(of_tokenizer))
    second = replace(prior, objective=replace(prior.objective, tokenizer_run=str(folder)))
    taken = with_tokenizer(second)
    assert taken.objective.tokenizer == read_config(tokenizer / "config.json").objective
    objective = taken.objective.build()
    start_tokenizer(objective, taken)
    assert tokenizer_fingerprint(objective.tokenizer) == load_tokenizer(folder, "cpu").fingerprint
    without = save_tokenizer(tmp_path / "teco", "generation.teco:tiny")
    with pytest.raises(UserError, match="teco has no tokenizer: give a run of"):
        with_tokenizer(replace(prior, objective=replace(prior.objective, tokenizer_run=str(without))))
