"""A trained network as a folder of ``transformers`` or ``diffusers``, as released weights, or as a whole run folder.

What another library reads is checked against the network itself before it takes its name, where that library is
installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.commands.work.export import TOLERANCE
from filmstrip.commands.work.model_card import model_card
from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.files import write_json, write_tensors, write_text
from filmstrip.inference import inference
from filmstrip.nn.normalise import Normalise
from filmstrip.nn.patches import PatchEmbed
from filmstrip.objectives.adaptation import to_peft
from filmstrip.objectives.three_losses import ThreeLosses
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import (
    Classifier,
    DualEncoder,
    InDiffusers,
    InPeft,
    InTransformers,
    MaskedPredictor,
    Objective,
    SeveralInTransformers,
)
from filmstrip.runs.frozen import copy_whole
from filmstrip.runs.loading import load_classes, load_objective
from filmstrip.text.tokenizers import FOLDER, open_tokenizer
from filmstrip.weights.keymap import some
from filmstrip.weights.released import from_published, to_published

_LENGTH = 9
"""Number of tokens of the texts that are compared."""
_FILES = {"transformers": "model.safetensors", "diffusers": "diffusion_pytorch_model.safetensors"}


def export_folder(source: str, out: Path, format: str, model: str | None = None) -> None:
    """Write a run as ``save_pretrained`` of ``transformers`` or ``diffusers`` would, or (``run``) as a run folder.

    ``model`` is that of ``transformers``, where it has several of a method.

    Raises:
        UserError: ``out`` exists, the library has no such network, or what it reads says something else.
    """
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or remove it")
    if format == "run":
        load_objective(source, "cpu")
        copy_whole(Path(source), out)
        print(f"{out}: the run in {source}, which needs no other folder; without its states")
        return
    objective, run = load_objective(source, "cpu", merged=format != "peft")
    if model is not None and not isinstance(objective, SeveralInTransformers):
        raise UserError(f"transformers has one model like {type(objective).__name__}: leave out --layout {model}")
    if run.objective.has_language and format in ("transformers", "peft"):
        from filmstrip.commands.work.export_language import export_language  # others do without its rooms

        export_language(source, objective, run, out, format)
        return
    if run.objective.has_pipeline and format == "diffusers":
        from filmstrip.commands.work.export_pipeline import export_pipeline  # others do without its rooms

        export_pipeline(source, objective, run, out)
        return
    if format == "peft":
        config, weights = objective.to_peft() if isinstance(objective, InPeft) else to_peft(objective)
        out.mkdir(parents=True)
        write_json(config, out / "adapter_config.json")
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        write_tensors(weights, out / "adapter_model.safetensors")
        names = "of its published network" if isinstance(objective, InPeft) else "of this network"
        print(f"{out}: the adaptation of {type(objective).__name__} for peft, by the names {names}")
        return
    classes: tuple[str, ...] = ()
    if format == "transformers":
        if not isinstance(objective, InTransformers):
            raise UserError(
                f"transformers has no network like {type(objective).__name__}: export runs of "
                "recognition.vit, timesformer or vivit, of recognition.finetuned that began with V-JEPA 2's head, of "
                "pretraining.videomae, or of language.blip"
            )
        if model is not None and isinstance(objective, SeveralInTransformers):
            config, weights = objective.to_transformers_as(model)
        else:
            config, weights = objective.to_transformers()
        if isinstance(objective, Classifier):
            classes = load_classes(source)
            config |= {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
        if isinstance(objective, DualEncoder):
            config["text_config"] |= _special_ids(Path(source))
    else:
        if not isinstance(objective, InDiffusers):
            raise UserError(
                f"diffusers has no network like {type(objective).__name__}: export runs of "
                "tokenizers.vqgan, tokenizers.vae_kl or generation.vdt"
            )
        config, weights = objective.to_diffusers()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder) / out.name
        written.mkdir()
        write_json(config, written / "config.json")
        write_tensors(weights, written / _FILES[format])
        if format == "transformers":
            _write_preprocessor(objective, run.data.clip, config, written)
            write_text(model_card(source, run, config, classes), written / "README.md")
            for path in tokenizer_files(Path(source)):
                shutil.copyfile(path, written / path.name)
        found = _difference(objective, run.data.clip, config, written, format)
        shutil.move(written, out)
    kind = config.get("_class_name") or config["architectures"][0]
    print(f"{out}: {kind} of {format}, {sum(tensor.nbytes for tensor in weights.values()) / 1e6:.1f} MB")
    tell_difference(found, format)


def export_released(source: str, out: Path, layout: str | None = None) -> None:
    """Write a run's weights by the names of its method's authors, checked by reading them again.

    Raises:
        UserError: no such layout is known of the network.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"cannot write {out}: --format released writes files that end with .safetensors")
    objective, _ = load_objective(source, "cpu")
    weights = to_published(objective, layout)
    state, again = objective.state_dict(), from_published(weights, objective)
    if changed := [name for name, value in again.items() if not torch.equal(value, state[name])]:
        raise UserError(f"this layout does not hold {some(changed)} of {source} as they are; nothing was written")
    write_tensors({name: value.contiguous() for name, value in weights.items()}, out)
    print(f"{out}: {len(weights)} tensors, {sum(tensor.nbytes for tensor in weights.values()) / 1e6:.1f} MB")


def _normalise_of(objective: Objective) -> Normalise:
    """The normalisation of pixels in an encoder of patches."""
    embed = objective.get_submodule("encoder.embed")
    assert isinstance(embed, PatchEmbed), "transformers has encoders of patches"
    return embed.normalise


def _write_preprocessor(objective: Objective, clip: Clip, config: dict[str, Any], folder: Path) -> None:
    """Write how frames become pixels: to a model of ``pixel_values_videos`` a processor of videos gives them."""
    told = _preprocessor(objective, clip)
    if config["model_type"] != "vjepa2":
        write_json(told, folder / "preprocessor_config.json")
        return
    del told["image_processor_type"]
    told |= {"video_processor_type": "VJEPA2VideoProcessor"}
    write_json(told, folder / "video_preprocessor_config.json")


def _preprocessor(objective: Objective, clip: Clip) -> dict[str, Any]:
    """How ``transformers`` is to make pixels of frames: as evaluation does here; whole images become squares, where
    its processor of images crops none."""
    normalise = _normalise_of(objective)
    square = {"height": clip.size, "width": clip.size}
    cropped = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": clip.eval_short_side or clip.size},
        "do_center_crop": True,
        "crop_size": square,
    }
    whole = {"image_processor_type": "BlipImageProcessor", "size": square}
    return {
        **(whole if isinstance(objective, DualEncoder) else cropped),
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": normalise.mean.flatten().tolist(),
        "image_std": normalise.std.flatten().tolist(),
    }


def tokenizer_files(run: Path) -> list[Path]:
    """Files of a published tokenizer that a run keeps; none if its tokenizer is of another kind."""
    folder = run / FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _special_ids(run: Path) -> dict[str, int]:
    """The ids of padding and of a text's end, of a run's tokenizer."""
    tokenizer = open_tokenizer(run)
    return {"pad_token_id": tokenizer.pad, "sep_token_id": tokenizer.end, "eos_token_id": tokenizer.end}


def _difference(
    objective: Objective, clip: Clip, config: dict[str, Any], folder: Path, format: str
) -> tuple[float, float] | None:
    """See :func:`difference`, on drawn video."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, clip.num_frames, 3, clip.size, clip.size)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    with inference(objective):
        return difference(format, lambda: _both(objective, video, config, folder, format))


def difference(library: str, both: Callable[[], tuple[Tensor, Tensor]]) -> tuple[float, float] | None:
    """The largest difference of the outputs of a written network from ours, and the largest output; none if the
    library is not installed. ``both`` reads the network there, and returns its outputs and ours.

    Raises:
        UserError: it cannot be read there, or they differ by more than rounding.
    """
    if importlib.util.find_spec(library) is None:
        return None
    try:
        theirs, ours = both()
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{library} cannot read what was written: {str(error).splitlines()[0]}") from None
    apart, scale = (theirs - ours).abs().max().item(), ours.abs().max().item()
    if not apart <= TOLERANCE * scale:
        raise UserError(
            f"the network that {library} reads differs from the original by {apart:.1e}, of values up to "
            f"{scale:.3g}; nothing was written"
        )
    return apart, scale


def tell_difference(found: tuple[float, float] | None, library: str) -> None:
    """Print what :func:`difference` found."""
    if found is None:
        print(f"not compared with the network itself: {library} is not installed")
    else:
        print(f"largest difference from the network itself {found[0]:.1e}, of outputs up to {found[1]:.3g}")


def read_in_transformers(config: Mapping[str, Any], folder: Path, **options: Any) -> Any:
    """The network of a written folder, as ``transformers`` reads it, in evaluation mode.

    Raises:
        ValueError: a weight is missing or has no place there.
    """
    network, report = getattr(importlib.import_module("transformers"), config["architectures"][0]).from_pretrained(
        folder, output_loading_info=True, local_files_only=True, **options
    )
    lacking = [name for name in report["missing_keys"] if not name.startswith("vjepa2.predictor.")]  # unused
    if lacking or report["unexpected_keys"]:
        raise ValueError(f"it lacks {lacking} and has no place for {report['unexpected_keys']}")
    return network.eval()


def _both(
    objective: Objective, video: Tensor, config: dict[str, Any], folder: Path, format: str
) -> tuple[Tensor, Tensor]:
    """What the library's network says of a video, and what ours does."""
    if format == "diffusers":
        network = getattr(importlib.import_module(format), config["_class_name"]).from_pretrained(folder).eval()
        frames = video.flatten(0, 1) / 127.5 - 1
        latents = network.encode(frames)
        theirs = latents.latent_dist.mode() if "latent_dist" in latents else latents.latents
        assert isinstance(objective, TokenizerObjective), "diffusers has tokenizers"
        ours = objective.autoencoder.encode(video / 255)
        ours = ours[..., : theirs.shape[1]].flatten(0, 1).movedim(-1, 1)
        return theirs, ours
    network = read_in_transformers(config, folder)
    pixels = _normalise_of(objective)(video)
    if isinstance(objective, MaskedPredictor):
        visible, masked = objective.masks(torch.arange(len(video)))
        places = torch.zeros(len(video), visible.shape[1] + masked.shape[1], dtype=torch.bool)
        theirs = network(pixels, bool_masked_pos=places.scatter(1, masked, True)).logits
        return theirs, objective.predict_masked(video, visible, masked)
    if isinstance(objective, ThreeLosses):
        return _of_pairs(objective, network, video[:, :1], pixels[:, 0])
    assert isinstance(objective, Classifier), "transformers has classifiers, masked predictors and BLIP"
    return network(pixels).logits, objective.classify(video)


def _of_pairs(objective: ThreeLosses, network: Any, images: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What a BLIP says of images and drawn texts: logits of words, or of matches beside cosines."""
    length = min(_LENGTH, objective.config.text.max_length)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(objective.config.vocab_size, (len(images), length), generator=generator)
    lengths, visual = torch.full((len(images),), length), objective.see(images)
    told = {"pixel_values": pixels, "attention_mask": torch.ones_like(ids)}

    def begun(first: int) -> Tensor:
        return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)

    if hasattr(network, "text_decoder"):
        return network(**told, input_ids=begun(objective.begins_caption)).logits, objective.caption_logits(
            visual, ids
        )
    no, yes = network(**told, input_ids=begun(objective.begins_match)).itm_score.unbind(dim=1)
    cosines = network(**told, input_ids=ids, use_itm_head=False).itm_score
    ours = objective.encode_video(images) @ objective.encode_text(ids, lengths).T
    return torch.cat([cosines, (yes - no)[:, None]], dim=1), torch.cat(
        [ours, objective.match(visual, ids, lengths)[:, None]], dim=1
    )
