"""A trained text-to-video model as a folder of ``diffusers``, with a folder for each of its parts."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from filmstrip.commands.work.export_folder import difference, tell_difference, tokenizer_files
from filmstrip.errors import UserError
from filmstrip.files import write_json, write_tensors
from filmstrip.inference import inference
from filmstrip.objectives.diffusion import scheduler_of
from filmstrip.objectives.noised_latents import NoisedLatents, NoisedLatentsConfig
from filmstrip.protocols import InDiffusers, InPipeline, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.contents import is_run
from filmstrip.runs.frozen import found_again, read_references
from filmstrip.runs.hub import address_of
from filmstrip.runs.hub_pipelines import INDEX, NETWORK, SCHEDULER, SCHEDULER_FILE, TEXT_ENCODER, TOKENIZER, VAE
from filmstrip.text.tokenizers import FOLDER, HubTokenizer, open_tokenizer
from filmstrip.weights.hub import CONFIG, files_of_hub, folder_of, json_of

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_pipeline(source: str, objective: Objective, run: Run, out: Path) -> None:
    """Write a run's transformer, its adaptation merged, with the parts that stayed as they were.

    Raises:
        UserError: ``diffusers`` has no such pipeline, a part is not there, or what it reads says something else.
    """
    if not isinstance(objective, InPipeline) or not isinstance(objective, NoisedLatents):
        raise UserError(f"diffusers has no pipeline like {type(objective).__name__}")
    told = objective.pipeline()
    own = found_again(run, Path(source), read_references(Path(source)), training=False).objective
    assert isinstance(own, NoisedLatentsConfig), "the objective is of its kind"
    words = _words(Path(source), own, objective)
    config, weights = objective.to_diffusers()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder) / out.name
        for part in (NETWORK, VAE, TEXT_ENCODER, TOKENIZER, SCHEDULER):
            (written / part).mkdir(parents=True)
        write_json(config, written / NETWORK / CONFIG)
        write_tensors(weights, written / NETWORK / _WEIGHTS)
        vae = _write_autoencoder(objective, own, written / VAE)
        if vae != told.autoencoder:
            raise UserError(f"{told.name} of diffusers has latents of {told.autoencoder}, and this run of {vae}")
        encoder = _copy(str(own.text_run), written / TEXT_ENCODER)["architectures"][0]
        for path in tokenizer_files(Path(source)):
            shutil.copyfile(path, written / TOKENIZER / path.name)
        solver = getattr(own.sampling, "solver", None)
        steps = scheduler_of(own.diffusion, spacing=own.sampling.spacing, uni_pc=solver == "uni_pc")
        write_json(steps, written / SCHEDULER / SCHEDULER_FILE)
        index = {
            "_class_name": told.name,
            NETWORK: ["diffusers", config["_class_name"]],
            VAE: ["diffusers", vae],
            TEXT_ENCODER: ["transformers", encoder],
            TOKENIZER: ["transformers", words],
            SCHEDULER: ["diffusers", steps["_class_name"]],
            **told.settings,
        }
        write_json(index, written / INDEX)
        found = difference("diffusers", lambda: _both(objective, config["_class_name"], written / NETWORK))
        shutil.move(written, out)
    print(f"{out}: {told.name} of diffusers; {config['_class_name']} of {_megabytes(weights)}")
    if told.text_length != own.text_length:
        print(
            f"its texts have {own.text_length} token ids with padding, and the pipeline's {told.text_length}: say so"
        )
    tell_difference(found, "diffusers")


def _megabytes(weights: dict[str, torch.Tensor]) -> str:
    return f"{sum(tensor.nbytes for tensor in weights.values()) / 1e6:.1f} MB"


def _words(source: Path, own: NoisedLatentsConfig, objective: NoisedLatents) -> str:
    """The class of a run's tokenizer in ``transformers``.

    Raises:
        UserError: texts are read in a way that no published pipeline reads them.
    """
    if own.text is None or own.text_run is None:
        raise UserError(
            f"a pipeline of diffusers reads texts by a published T5, and this {type(objective).__name__} "
            + ("reads none of a run's" if own.text is None else "has an untrained one")
            + ": nothing was written (--format run writes it for filmstrip)"
        )
    if not (source / FOLDER).is_dir():
        raise UserError(f"{source} reads texts by a tokenizer of its own, which transformers does not have")
    tokenizer = open_tokenizer(source)
    assert isinstance(tokenizer, HubTokenizer), "it has a folder"
    return type(tokenizer.hub).__name__


def _write_autoencoder(objective: NoisedLatents, own: NoisedLatentsConfig, folder: Path) -> str:
    """Write the autoencoder, as it was published or from a run's weights; its class in ``diffusers``.

    Raises:
        UserError: ``diffusers`` has none like it.
    """
    place = own.tokenizer_run
    if place is not None and not is_run(place):
        config = _copy(place, folder)
    else:
        if not isinstance(objective.tokenizer, InDiffusers):
            raise UserError(f"diffusers has no autoencoder like {type(objective.tokenizer).__name__}")
        config, weights = objective.tokenizer.to_diffusers()
        write_tensors(weights, folder / _WEIGHTS)
    name: str = config["_class_name"]
    if name == "AutoencoderKL":  # the factor is the run's
        config["scaling_factor"] = objective.latent_scale.item()
    write_json(config, folder / CONFIG)
    return name


def _copy(place: str, folder: Path) -> dict[str, Any]:
    """Copy a published model; what its ``config.json`` says."""
    source = address_of(place)
    for path in files_of_hub(source):
        shutil.copyfile(path, folder / path.name)
    return json_of(folder_of(source, CONFIG) / CONFIG, place)


@torch.no_grad()
def _both(objective: Any, name: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What the written network says of drawn latents and texts, and what ours does."""
    network = getattr(importlib.import_module("diffusers"), name).from_pretrained(folder).eval()
    with inference(objective):
        return objective.beside(network)
