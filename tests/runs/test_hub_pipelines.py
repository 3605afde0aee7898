"""A published text-to-video model in the layout of ``diffusers``, made small here: fine-tuned with LoRA on captioned
films by the command, and sampled from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import published_pipelines
from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.errors import UserError
from filmstrip.models.video_dit_layouts import to_diffusers_dit
from filmstrip.nn.lora import is_adaptation
from filmstrip.objectives.adaptation import adapt_part
from filmstrip.objectives.config import LowRank
from filmstrip.objectives.diffusion import process_of
from filmstrip.protocols import Condition
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from filmstrip.runs.text_towers import start_text_tower
from filmstrip.runs.tokenizers import start_tokenizer
from filmstrip.systems.generation.vdt import GuidedSampling
from run_folders import save_run

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

PROMPTS = ["a red film", "a blue film"]


@pytest.fixture(scope="module")
def pipeline():
    return published_pipelines.latte()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "latte"
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return published_pipelines.captioned_films(tmp_path_factory.mktemp("films"))


def words(folder, films, *more):
    few = ["--train.steps", "2", "--data.batch-size", "2", "--data.num-workers", "0", "--train.precision", "float32"]
    return [
        "generation.vdt:latte",
        "--init",
        str(folder),
        "--data",
        str(films),
        "--data.clip.stride",
        "1",
        *few,
        *more,
    ]


def asked(pipeline):
    """Two samples that follow the prompts."""
    rows = [pipeline.tokenizer(p, padding="max_length", max_length=120, return_tensors="pt") for p in PROMPTS]
    ids, lengths = (torch.cat([row[key] for row in rows]) for key in ("input_ids", "attention_mask"))
    return Condition(batch_size=2, num_frames=4, text=({"text": ids, "text_length": lengths.sum(dim=1)},))


def sampled(pipeline, objective):
    """The same by the pipeline of diffusers, from our noise."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=objective.noise(torch.tensor([7, 8]), 4, (4, 4)).transpose(1, 2),
        video_length=4,
        height=32,
        width=32,
        output_type="pt",
        clean_caption=False,
    ).frames


@pytest.fixture(scope="module")
def tuned(folder, films, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    settings = ["--lora.rank", "2", "--lora.layers", "embed", "qkv", "kv", "out", "fc1", "--optim.lr", "0.02"]
    assert main(["train", *words(folder, films, *settings), "--out", str(out)]) == 0
    return out


def test_its_parts_say_sizes_noise_clips_and_how_texts_are_read(folder, films, caplog):
    run, _ = run_from(Train, words(folder, films), "filmstrip train")
    own, clip = run.objective, run.data.clip
    assert (own.transformer.width, own.transformer.depth, own.transformer.context_width) == (24, 2, 20)
    assert (own.num_frames, own.size, clip.num_frames, clip.size, clip.short_side) == (4, 32, 4, 32, (32, 32))
    assert own.tokenizer_run == str(folder / "vae") and own.text_run == str(folder / "text_encoder")
    assert own.diffusion.prediction == "epsilon" and own.diffusion.beta_end == 0.02
    assert own.sampling.spacing == "trailing" and own.sampling.guidance == 7.5
    assert run.data.reads.tokenizer.folder == str(folder / "tokenizer") and run.data.reads.max_length == 120
    assert run.init == str(folder / "transformer") and "says how large the network is" in caplog.text


@torch.no_grad()
def test_samples_are_those_of_the_pipeline(pipeline, folder, films):
    run, _ = run_from(Train, words(folder, films), "filmstrip train")
    from filmstrip.data.sources import open_source
    from filmstrip.runs.text_towers import with_text_tower
    from filmstrip.runs.tokenizers import with_tokenizer

    run = with_tokenizer(with_text_tower(run))
    source = open_source(run.data)
    run = run.bound(source.info("train"))
    objective = run.objective.build().eval()
    start(objective, run.init)
    start_tokenizer(objective, run)
    start_text_tower(objective, run)
    assert objective.latent_scale == 0.5
    expected = sampled(pipeline, objective)
    found = objective.sample(asked(pipeline), seed=7, sampling=GuidedSampling(steps=4, guidance=1.0))
    assert expected.shape == found.shape and expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_lora_learns_beside_weights_that_stay(tuned, folder, pipeline):
    config = json.loads((tuned / "config.json").read_text())
    assert config["lora"]["rank"] == 2
    objective, _ = load_objective(tuned, "cpu", merged=False)
    theirs = pipeline.transformer.state_dict()
    base = {name: w for name, w in objective.transformer.state_dict().items() if not is_adaptation(name)}
    written = to_diffusers_dit(base, objective.config.transformer)
    assert all(torch.equal(written[name], tensor) for name, tensor in theirs.items())
    learnt = [w for name, w in objective.transformer.state_dict().items() if "lora_up" in name]
    assert learnt and all(w.any() for w in learnt)
    frozen = json.loads((tuned / "frozen.json").read_text())
    assert set(frozen) == {"objective.tokenizer_run", "objective.text_run"}
    kept = load_file(tuned / "weights.safetensors")
    assert not [name for name in kept if name.startswith(("text.", "tokenizer."))]


def test_the_adaptation_is_written_by_the_published_names(tuned, tmp_path, capsys):
    assert main(["export", str(tuned), "--format", "peft", "--out", str(tmp_path / "adapter")]) == 0
    assert "of its published network" in capsys.readouterr().out
    about = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    factors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    plain, _ = load_objective(tuned, "cpu", merged=False)
    merged, _ = load_objective(tuned, "cpu")
    config = merged.config.transformer
    base = {name: w for name, w in plain.transformer.state_dict().items() if not is_adaptation(name)}
    theirs, wanted = (to_diffusers_dit(state, config) for state in (base, merged.transformer.state_dict()))
    assert (
        "transformer_blocks.0.attn1.to_k" in about["target_modules"] and "pos_embed.proj" in about["target_modules"]
    )
    assert len(factors) == 2 * len(about["target_modules"])
    for target in about["target_modules"]:
        down, up = (factors[f"base_model.model.{target}.lora_{side}.weight"] for side in "AB")
        assert down.shape[0] == about["r"] == up.shape[1]
        product = (up.flatten(1) @ down.flatten(1)).view_as(theirs[f"{target}.weight"])
        theirs[f"{target}.weight"] += about["lora_alpha"] / about["r"] * product
    for name, tensor in wanted.items():
        torch.testing.assert_close(theirs[name], tensor, msg=name)


@torch.no_grad()
def test_the_pipeline_is_written_again_with_what_was_learnt(tuned, tmp_path, capsys):
    out = tmp_path / "pipeline"
    assert main(["export", str(tuned), "--format", "diffusers", "--out", str(out)]) == 0
    assert "LattePipeline of diffusers" in capsys.readouterr().out
    pipeline = diffusers.LattePipeline.from_pretrained(out)
    objective, _ = load_objective(tuned, "cpu")
    assert pipeline.vae.config.scaling_factor == 0.5
    expected = sampled(pipeline, objective)
    found = objective.sample(asked(pipeline), seed=7, sampling=GuidedSampling(steps=4, guidance=1.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_pipeline_is_written_with_the_autoencoder_of_a_run(folder, films, tmp_path):
    save_run(tmp_path / "vae", "tokenizers.vae_kl:tiny")
    more = ("--objective.tokenizer-run", str(tmp_path / "vae"), "--objective.latent-scale", "0.7")
    assert main(["train", *words(folder, films, *more), "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--format", "diffusers", "--out", str(tmp_path / "out")]) == 0
    pipeline = diffusers.LattePipeline.from_pretrained(tmp_path / "out")
    assert pipeline.vae.config.scaling_factor == pytest.approx(0.7)
    objective, _ = load_objective(tmp_path / "run", "cpu")
    latents = torch.randn(1, 1, 4, 8, 8)
    with torch.no_grad():
        theirs = pipeline.vae.decode(latents[:, 0] / pipeline.vae.config.scaling_factor).sample
    expected = (theirs / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(objective.pixels(latents)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_wan_adaptations_turn_as_its_heads_do():
    from filmstrip.models.video_dit import VideoDiT, VideoDiTArchitecture
    from filmstrip.models.video_dit_layouts import architecture_of, config_of, to_peft_dit
    from filmstrip.nn.lora import adapted_layers, merge
    from filmstrip.protocols import Grid

    sizes = dict(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=20, freq_dim=32
    )
    theirs = diffusers.WanTransformer3DModel(**sizes, ffn_dim=40, num_layers=1)
    config = architecture_of(json.loads(theirs.to_json_string()), "it")
    assert isinstance(config, VideoDiTArchitecture) and config_of(config, channels=4, size=Grid(3, 8, 8))
    ours = VideoDiT(config, channels=4, size=Grid(3, 8, 8))

    class Holder(torch.nn.Module):
        lora_part = "transformer"

        def __init__(self):
            super().__init__()
            self.transformer = ours

        def is_kept_elsewhere(self, name):
            return False

    adapt_part(Holder(), LowRank(rank=3, alpha=6.0, layers=("qkv", "embed")))
    for _, layer in adapted_layers(ours):
        torch.nn.init.normal_(layer.product("all")[1])
    base = to_diffusers_dit({k: v for k, v in ours.state_dict().items() if not is_adaptation(k)}, config)
    about, factors = to_peft_dit(ours)
    merge(ours)
    wanted = to_diffusers_dit(ours.state_dict(), config)
    assert about["target_modules"] == ["patch_embedding", *(f"blocks.0.attn1.to_{x}" for x in "qkv")]
    for target in about["target_modules"]:
        down, up = (factors[f"base_model.model.{target}.lora_{side}.weight"] for side in "AB")
        product = (up.flatten(1) @ down.flatten(1)).view_as(base[f"{target}.weight"])
        torch.testing.assert_close(base[f"{target}.weight"] + 2 * product, wanted[f"{target}.weight"])


def test_the_run_is_sampled_from_by_texts_and_from_a_first_frame(tuned, films, tmp_path, capsys):
    out = tmp_path / "made.mp4"
    request = ["generate", str(tuned), "--num-samples", "2", "--sampling.steps", "2", "--out", str(out)]
    assert main([*request, "--text", "a red film", "a blue film", "--sampling.guidance", "3"]) == 0
    assert "2 x 4 frames" in capsys.readouterr().out and out.stat().st_size
    begun = ["--condition", str(films.parent / "red2.mp4"), "--text", "a red film"]
    assert main([*request, *begun]) == 0
    assert main([*request, "--sampling.guidance", "1"]) == 0
    assert main(request) == 2
    assert "guidance strengthens a text" in capsys.readouterr().err


def test_a_folder_of_its_transformer_alone_is_begun_with(folder, films):
    run, _ = run_from(Train, words(folder / "transformer", films), "filmstrip train")
    assert run.objective.transformer.width == 24 and run.objective.text_run is None
    assert run.objective.needs_init() and "--objective.text-run" in run.objective.needs_init()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--objective.transformer.width", "48"), "leave out objective.transformer.width"),
        (("--data.clip.size", "36"), "not a multiple of patches (1, 8, 8)"),
    ],
)
def test_settings_that_it_decides_are_refused(folder, films, tmp_path, capsys, more, message):
    assert main(["train", *words(folder, films, *more), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_folders_that_do_not_fit_are_refused(folder, films, tmp_path, capsys):
    lacking = tmp_path / "lacking"
    shutil.copytree(folder, lacking)
    shutil.rmtree(lacking / "vae")
    assert main(["train", *words(lacking, films), "--out", str(tmp_path / "run")]) == 2
    assert "lacks the folder vae" in capsys.readouterr().err
    (lacking / "scheduler/scheduler_config.json").unlink()
    assert main(["train", *words(lacking, films), "--out", str(tmp_path / "run")]) == 2
    assert "which says what is noise" in capsys.readouterr().err
    assert main(["train", *words(folder / "vae", films), "--out", str(tmp_path / "run")]) == 2
    assert "AutoencoderKL, and a video diffusion transformer is needed" in capsys.readouterr().err


def test_schedulers_of_diffusers_are_processes():
    flow = json.loads(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).to_json_string())
    assert (process_of(flow, "it").prediction, process_of(flow, "it").shift) == ("velocity", 3.0)
    solver = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    assert process_of(json.loads(solver.to_json_string()), "it").shift == 5.0
    theirs = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    ours = process_of(json.loads(theirs.to_json_string()), "it").build()
    torch.testing.assert_close(ours.kept.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="beta_schedule 'exp'"):
        process_of({"beta_schedule": "exp"}, "it")
