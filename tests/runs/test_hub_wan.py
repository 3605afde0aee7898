"""Wan's pipeline in the layout of ``diffusers``, made small here: its autoencoder and its encoder of texts, samples
as the pipeline draws them, and LoRA on captioned films by the command."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import published_pipelines
from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.models.frozen_text import FrozenT5, T5Architecture
from filmstrip.models.video_dit_layouts import to_diffusers_dit
from filmstrip.nn.lora import is_adaptation
from filmstrip.objectives.video_autoencoder import VideoAutoencoderConfig
from filmstrip.protocols import Condition, Tokens
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from filmstrip.runs.text_towers import start_text_tower, with_text_tower
from filmstrip.runs.tokenizers import start_tokenizer, with_tokenizer
from filmstrip.systems import find
from filmstrip.systems.generation.vdt import GuidedSampling
from filmstrip.weights.hub import folder_of

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

PROMPTS = ["a red film", "a blue film"]


@pytest.fixture(scope="module")
def pipeline():
    return published_pipelines.wan()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "wan"
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return published_pipelines.captioned_films(tmp_path_factory.mktemp("films"), frames=16)


def words(folder, films, *more):
    clip = ["--data.clip.num-frames", "5", "--data.clip.size", "32", "--data.clip.stride", "2"]
    few = ["--train.steps", "2", "--data.batch-size", "2", "--data.num-workers", "0", "--train.precision", "float32"]
    return ["generation.vdt:wan", "--init", str(folder), "--data", str(films), *clip, *few, *more]


def started(folder, films):
    """The objective of a run that begins with a pipeline, and a source of its films."""
    run, _ = run_from(Train, words(folder, films), "filmstrip train")
    run = with_tokenizer(with_text_tower(run))
    run = run.bound(open_source(run.data).info("train"))
    objective = run.objective.build().eval()
    start(objective, run.init)
    start_tokenizer(objective, run)
    start_text_tower(objective, run)
    return objective, run


def asked(pipeline):
    """Two samples of five frames that follow the prompts."""
    rows = [pipeline.tokenizer(p, padding="max_length", max_length=512, return_tensors="pt") for p in PROMPTS]
    ids, lengths = (torch.cat([row[key] for row in rows]) for key in ("input_ids", "attention_mask"))
    return Condition(batch_size=2, num_frames=5, text=({"text": ids, "text_length": lengths.sum(dim=1)},))


def sampled(pipeline, objective, *, steps, guidance):
    """The same by the pipeline of diffusers, from our noise."""
    pipeline.set_progress_bar_config(disable=True)
    noise = objective.noise(torch.tensor([7, 8]), 2, (4, 4))
    return pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise.transpose(1, 2),
        num_frames=5,
        height=32,
        width=32,
        output_type="pt",
    ).frames


@pytest.fixture(scope="module")
def tuned(folder, films, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    settings = ["--lora.rank", "2", "--lora.layers", "embed", "qkv", "kv", "fc1", "--optim.lr", "0.02"]
    assert main(["train", *words(folder, films, *settings), "--out", str(out)]) == 0
    return out


def test_its_parts_say_sizes_noise_and_how_texts_are_read(folder, films):
    run, _ = run_from(Train, words(folder, films), "filmstrip train")
    own = with_tokenizer(with_text_tower(run)).objective
    assert (own.transformer.width, own.transformer.depth, own.transformer.context_width) == (24, 2, 20)
    assert own.transformer.positions == "rotary" and own.transformer.qk_norm
    assert (own.diffusion.prediction, own.diffusion.shift, own.sampling.solver) == ("velocity", 3.0, "uni_pc")
    assert own.text.own_positions and own.text.depth == 2
    assert own.tokenizer.kind == "AutoencoderKLWan" and dict(own.tokenizer.settings)["z_dim"] == "4"
    assert run.data.reads.max_length == 512 and own.latent_scale == 1.0


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("solver", ["uni_pc", "ddim"])
def test_samples_are_those_of_the_pipeline(films, tmp_path, solver, guidance):
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0) if solver == "ddim" else None
    pipeline = published_pipelines.wan(euler)
    pipeline.save_pretrained(tmp_path / "wan")
    objective, run = started(tmp_path / "wan", films)
    assert run.objective.sampling.solver == solver
    expected = sampled(pipeline, objective, steps=4, guidance=guidance)
    sampling = GuidedSampling(steps=4, guidance=guidance, solver=solver)
    found = objective.sample(asked(pipeline), seed=7, sampling=sampling)
    assert expected.shape == found.shape and expected.std() > 0.02
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_its_autoencoder_codes_the_first_frame_alone_and_nothing_by_what_comes_later(pipeline):
    config, _ = VideoAutoencoderConfig().of_hub(json.loads(pipeline.vae.to_json_string()), None, "it")
    ours = config.build()
    ours.load_state_dict(ours.from_published(pipeline.vae.state_dict()), strict=False)
    assert ours.patch_size == (4, 8, 8) and ours.grid_of(9, 32, 16) == (3, 4, 2)
    video = torch.rand(2, 9, 3, 32, 16)
    found = ours.encode(video)
    theirs = pipeline.vae.encode(2 * video.transpose(1, 2) - 1).latent_dist.mode()
    mean, std = (torch.tensor(pipeline.vae.config[f"latents_{x}"]).view(4, 1, 1, 1) for x in ("mean", "std"))
    torch.testing.assert_close(found.latents.unflatten(1, (3, 4, 2)).movedim(-1, 1), (theirs - mean) / std)
    other = torch.cat([video[:, :5], torch.rand(2, 4, 3, 32, 16)], dim=1)
    same = (ours.encode(other).latents == found.latents).reshape(2, 3, -1).all(dim=2)
    assert same.tolist() == [[True, True, False]] * 2
    rebuilt = ours.decode(Tokens(found.grid, latents=found.latents))
    expected = (pipeline.vae.decode(theirs).sample.transpose(1, 2) + 1) / 2
    torch.testing.assert_close(rebuilt, expected.clamp(0, 1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"8 x 32 x 16 .* its first frame left out, is not a multiple"):
        ours.encode(video[:, :8])


@torch.no_grad()
def test_its_encoder_of_texts_is_read_as_it_is(pipeline):
    theirs = pipeline.text_encoder
    ours = FrozenT5(T5Architecture.of_hub(theirs.config.to_dict(), "it"))
    ours.load_state_dict(FrozenT5.weights_of(theirs.state_dict()))
    ids, valid = torch.randint(0, 8, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    expected = theirs(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, valid), expected)


def test_lora_learns_beside_weights_that_stay(tuned, pipeline):
    pictures = json.loads((tuned / "samples/pictures.json").read_text())
    assert "follow the captions" in pictures[-1]["note"] and len(pictures[-1]["names"]) == 4
    objective, _ = load_objective(tuned, "cpu", merged=False)
    theirs = pipeline.transformer.state_dict()
    base = {name: w for name, w in objective.transformer.state_dict().items() if not is_adaptation(name)}
    written = to_diffusers_dit(base, objective.config.transformer)
    assert all(torch.equal(written[name], tensor) for name, tensor in theirs.items())
    learnt = [w for name, w in objective.transformer.state_dict().items() if "lora_up" in name]
    assert learnt and all(w.any() for w in learnt)
    assert set(json.loads((tuned / "frozen.json").read_text())) == {"objective.tokenizer_run", "objective.text_run"}


@torch.no_grad()
def test_the_pipeline_is_written_again_with_what_was_learnt(tuned, films, folder, tmp_path, capsys):
    out = tmp_path / "pipeline"
    assert main(["export", str(tuned), "--format", "diffusers", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "WanPipeline of diffusers" in said and "largest difference from the network itself" in said
    pipeline = diffusers.WanPipeline.from_pretrained(out)
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
    assert type(pipeline.text_encoder).__name__ == "UMT5EncoderModel"
    objective, _ = load_objective(tuned, "cpu")
    sampling = replace(objective.config.sampling, steps=3, guidance=4.0)
    expected = objective.sample(asked(pipeline), seed=7, sampling=sampling)
    before = diffusers.WanPipeline.from_pretrained(folder)
    for network, same in ((pipeline, True), (before, False)):
        made = sampled(network, objective, steps=3, guidance=4.0)
        assert torch.allclose(made, expected, rtol=1e-4, atol=1e-4) is same
    again, _ = started(out, films)
    state = again.transformer.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in objective.transformer.state_dict().items())


def test_a_pipeline_of_untrained_texts_is_not_written(folder, films, tmp_path, capsys):
    given = words(folder / "transformer", films, "--objective.tokenizer-run", str(folder / "vae"))
    own = ["--objective.untrained-text", "--data.reads.tokenizer", str(folder / "tokenizer")]
    sizes = {"depth": 1, "width": 20, "vocab-size": 20, "hidden": 8}
    small = [word for name, size in sizes.items() for word in (f"--objective.text.{name}", str(size))]
    assert main(["train", *given, *own, *small, "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--format", "diffusers", "--out", str(tmp_path / "out")]) == 2
    assert "has an untrained one: nothing was written" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_run_is_sampled_from_by_texts_and_from_first_frames(tuned, films, tmp_path, capsys):
    out = tmp_path / "made.mp4"
    request = ["generate", str(tuned), "--num-samples", "2", "--sampling.steps", "2", "--out", str(out)]
    assert main([*request, "--text", "a red film", "a blue film", "--sampling.guidance", "3"]) == 0
    assert "2 x 5 frames" in capsys.readouterr().out and out.stat().st_size
    begun = ["--condition", str(films.parent / "red2.mp4"), "--text", "a red film"]
    assert main([*request, *begun]) == 0
    assert main([*request, "--text", "a red film", "--frames", "9"]) == 0
    assert "2 x 9 frames" in capsys.readouterr().out
    assert main([*request, *begun, "--context-frames", "2"]) == 2
    assert "given its first frame, or 4 or a multiple more: 2 were given" in capsys.readouterr().err
    assert main([*request, *begun, "--given", "0", "4"]) == 2
    assert "leave out --given" in capsys.readouterr().err
    assert main([*request, "--text", "a red film", "--frames", "8"]) == 2
    assert "4 frames at a time after the first one" in capsys.readouterr().err


@torch.no_grad()
def test_a_given_first_frame_stays(tuned):
    objective, _ = load_objective(tuned, "cpu")
    video = torch.rand(1, 1, 3, 32, 32)
    asked = Condition(batch_size=1, num_frames=5, video=video)
    seen = []
    hook = objective.transformer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    made = objective.sample(asked, seed=3, sampling=GuidedSampling(steps=2, guidance=1.0))
    hook.remove()
    torch.testing.assert_close(made[:, :1], video)
    clean = objective.latents(video)
    assert all(torch.allclose(x[:, :1], clean, atol=1e-5) for x in seen)


def test_parts_on_the_hub_keep_their_names(folder, films, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def fetched(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder if name == "someone/wan" else tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    objective, run = started("hf:someone/wan", films)
    assert run.init == "hf:someone/wan/transformer"
    assert run.objective.tokenizer_run == "hf:someone/wan/vae"
    assert run.objective.text_run == "hf:someone/wan/text_encoder"
    assert {name for name, _ in asked} == {"someone/wan"}
    assert ["vae/*.json", "vae/*.safetensors"] in [patterns for _, patterns in asked]
    beside, _ = started(folder, films)
    assert all(torch.equal(value, beside.state_dict()[name]) for name, value in objective.state_dict().items())
    out = tmp_path / "run"
    assert main(["train", *words("hf:someone/wan", films, "--lora.rank", "2"), "--out", str(out)]) == 0
    places = json.loads((out / "frozen.json").read_text())
    assert [place["path"] for found in places.values() for place in found] == [
        "hf:someone/wan/vae",
        "hf:someone/wan/text_encoder",
    ]
    load_objective(out, "cpu")
    with pytest.raises(UserError, match="has no folder vae"):
        folder_of("hf:someone/other/vae")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data.clip.num-frames", "8"), "its first frame left out, is not a multiple of patches (4, 8, 8)"),
        (("--objective.tasks", "generate", "1", "interpolate", "1"), "leave interpolate out of objective.tasks"),
    ],
)
def test_what_does_not_fit_is_refused(folder, films, tmp_path, capsys, more, message):
    assert main(["train", *words(folder, films, *more), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_other_pipelines_are_refused(folder, films, tmp_path, capsys):
    two = tmp_path / "two"
    shutil.copytree(folder, two)
    index = json.loads((two / "model_index.json").read_text())
    for change, message in (
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "has two transformers"),
        ({"expand_timesteps": True}, "gives each place a time of its own"),
    ):
        (two / "model_index.json").write_text(json.dumps(index | change))
        assert main(["train", *words(two, films), "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="halves time 1 times"):
        VideoAutoencoderConfig().of_hub(
            {"_class_name": "AutoencoderKLWan", "temperal_downsample": [False, False, True]}, None, "it"
        )
    with pytest.raises(UserError, match="does not know: what"):
        VideoAutoencoderConfig().of_hub({"_class_name": "AutoencoderKLWan", "what": 1}, None, "it")


def test_editors_need_a_latent_of_each_frame():
    config = find("editing.sdedit:tiny").objective
    own = replace(config, tokenizer=VideoAutoencoderConfig(), vocab_size=8, text_length=4)
    with torch.device("meta"), pytest.raises(UserError, match="codes 4 frames together"):
        own.build()


def test_the_published_size():
    run = find("generation.vdt:wan")
    with torch.device("meta"):
        objective = replace(run.objective, vocab_size=256384, text_length=512, empty_text=(1,)).build()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in objective.named_children()}
    assert counts["transformer"] / 1e6 == pytest.approx(1418.9, abs=0.1)
    assert counts["tokenizer"] / 1e6 == pytest.approx(126.9, abs=0.1)
    assert counts["text"] / 1e9 == pytest.approx(5.68, abs=0.01)
