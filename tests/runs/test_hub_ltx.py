"""LTX-Video's pipeline in the layout of ``diffusers``, made small here: samples as the pipeline draws them, LoRA on
captioned films by the command, and the pipeline written again."""

import json
from dataclasses import replace

import pytest
import torch

import published_pipelines
from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.objectives.diffusion import DiffusionConfig, process_of, scheduler_of
from filmstrip.objectives.video_autoencoder import VideoAutoencoderConfig
from filmstrip.protocols import Condition, Tokens
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from filmstrip.runs.text_towers import start_text_tower, with_text_tower
from filmstrip.runs.tokenizers import start_tokenizer, with_tokenizer
from filmstrip.systems import find

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

PROMPTS = ["a red film", "blue"]


@pytest.fixture(scope="module")
def pipeline():
    return published_pipelines.ltx()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "ltx"
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return published_pipelines.captioned_films(tmp_path_factory.mktemp("films"))


def words(folder, films, *more):
    clip = ["--data.clip.num-frames", "9", "--data.clip.size", "64", "--data.clip.stride", "1"]
    few = ["--train.steps", "2", "--data.batch-size", "2", "--data.num-workers", "0", "--train.precision", "float32"]
    return ["generation.vdt:ltx", "--init", str(folder), "--data", str(films), *clip, *few, *more]


def asked(pipeline):
    """Two samples of nine frames that follow prompts of different lengths."""
    rows = [pipeline.tokenizer(p, padding="max_length", max_length=128, return_tensors="pt") for p in PROMPTS]
    ids, lengths = (torch.cat([row[key] for row in rows]) for key in ("input_ids", "attention_mask"))
    return Condition(batch_size=2, num_frames=9, text=({"text": ids, "text_length": lengths.sum(dim=1)},))


def sampled(pipeline, objective, *, steps, guidance):
    """The same by the pipeline of diffusers, from our noise."""
    pipeline.set_progress_bar_config(disable=True)
    noise = objective.noise(torch.tensor([7, 8]), 2, (2, 2))
    return pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise.permute(0, 1, 3, 4, 2).flatten(1, 3),  # as tokens
        num_frames=9,
        height=64,
        width=64,
        output_type="pt",
    ).frames


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", [{}, {"shift_terminal": None, "base_image_seq_len": 4}])
def test_samples_are_those_of_the_pipeline(films, tmp_path, scheduler, guidance):
    pipeline = published_pipelines.ltx(**scheduler)
    pipeline.save_pretrained(tmp_path / "ltx")
    run, _ = run_from(Train, words(tmp_path / "ltx", films), "filmstrip train")
    run = with_tokenizer(with_text_tower(run))
    assert run.objective.transformer.latent_steps == (0.32, 32, 32) and run.data.reads.max_length == 128
    run = run.bound(open_source(run.data).info("train"))
    objective = run.objective.build().eval()
    start(objective, run.init)
    start_tokenizer(objective, run)
    start_text_tower(objective, run)
    expected = sampled(pipeline, objective, steps=4, guidance=guidance)
    sampling = replace(run.objective.sampling, steps=4, guidance=guidance)
    found = objective.sample(asked(pipeline), seed=7, sampling=sampling)
    assert expected.shape == found.shape and expected.std() > 0.005
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_its_autoencoder_codes_the_first_frame_alone_and_nothing_by_what_comes_later(pipeline):
    vae = pipeline.vae
    config, _ = VideoAutoencoderConfig().of_hub(json.loads(vae.to_json_string()), None, "it")
    ours = config.build()
    ours.load_state_dict(ours.from_published(vae.state_dict()), strict=False)
    assert ours.patch_size == (8, 32, 32) and ours.grid_of(17, 64, 32) == (3, 2, 1)
    video = torch.rand(2, 17, 3, 64, 32)
    found = ours.encode(video)
    means = vae.encode(2 * video.transpose(1, 2) - 1).latent_dist.mode()
    theirs = pipeline._normalize_latents(means, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    torch.testing.assert_close(found.latents.unflatten(1, (3, 2, 1)).movedim(-1, 1), theirs)
    other = torch.cat([video[:, :9], torch.rand(2, 8, 3, 64, 32)], dim=1)
    apart = (ours.encode(other).latents - found.latents).reshape(2, 3, -1).abs().amax(dim=2)
    assert (apart[:, :2] < 1e-5).all() and (apart[:, 2] > 1e-3).all()
    rebuilt = ours.decode(Tokens(found.grid, latents=found.latents))
    expected = (vae.decode(means).sample.transpose(1, 2) + 1) / 2
    torch.testing.assert_close(rebuilt, expected.clamp(0, 1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_is_tuned_sampled_from_and_written_again(folder, films, tmp_path, capsys):
    run, out = str(tmp_path / "run"), tmp_path / "pipeline"
    with torch.enable_grad():
        tune = ["--lora.rank", "2", "--lora.layers", "embed", "qkv", "kv", "fc1", "--optim.lr", "0.02"]
        assert main(["train", *words(folder, films, *tune), "--out", run]) == 0
    request = ["generate", run, "--num-samples", "2", "--sampling.steps", "2", "--out", str(tmp_path / "made.mp4")]
    assert main([*request, "--text", "a red film", "--condition", str(films.parent / "red2.mp4")]) == 0
    assert main(["export", run, "--format", "diffusers", "--out", str(out)]) == 0
    assert "LTXPipeline of diffusers" in capsys.readouterr().out
    pipeline = diffusers.LTXPipeline.from_pretrained(out)
    objective, _ = load_objective(run, "cpu")
    sampling = replace(objective.config.sampling, steps=3, guidance=3.0)
    expected = objective.sample(asked(pipeline), seed=7, sampling=sampling)
    for network, same in ((pipeline, True), (diffusers.LTXPipeline.from_pretrained(folder), False)):
        made = sampled(network, objective, steps=3, guidance=3.0)
        assert torch.allclose(made, expected, rtol=1e-4, atol=1e-4) is same


def test_other_autoencoders_are_refused():
    for setting in ("timestep_conditioning", "patch_size_t"):
        with pytest.raises(UserError, match=f"{setting} (True|2), and"):
            told = {"_class_name": "AutoencoderKLLTXVideo", setting: 2 if setting == "patch_size_t" else True}
            VideoAutoencoderConfig().of_hub(told, None, "it")


def test_shifts_by_the_size_of_clips():
    own = find("generation.vdt:ltx").objective.diffusion
    assert process_of(scheduler_of(own, spacing="trailing", uni_pc=False), "it") == own
    process = own.build()
    assert process.of_size(1024).shift == pytest.approx(2.5857, abs=1e-3)
    assert process.of_size(4096).shift == pytest.approx(7.7679, abs=1e-3)
    times = process.of_size(2048).times(8)
    assert times[0] == 1000 and times[-2] == pytest.approx(100) and times[-1] == 0
    with pytest.raises(UserError, match=r"leave out diffusion\.size_shift"):
        process.times(8)
    with pytest.raises(UserError, match="in place of a shift"):
        replace(own, shift=3.0).build()
    with pytest.raises(UserError, match="goes with size_shift"):
        DiffusionConfig(prediction="velocity", last_level=0.1).build()
    with pytest.raises(UserError, match="exponential kind"):
        process_of({"_class_name": "UniPC", "use_flow_sigmas": True, "use_dynamic_shifting": True}, "it")


def test_the_published_size():
    run = find("generation.vdt:ltx")
    with torch.device("meta"):
        objective = replace(run.objective, vocab_size=32128, text_length=128, empty_text=(1,)).build()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in objective.named_children()}
    assert counts["transformer"] / 1e6 == pytest.approx(1923.4, abs=0.1)
    assert counts["tokenizer"] / 1e6 == pytest.approx(419.2, abs=0.1)
