"""Language models that see, as folders of ``transformers`` (whole) or ``peft`` (their adaptation alone)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.commands.work.export_folder import difference, read_in_transformers, tell_difference, tokenizer_files
from filmstrip.commands.work.export_text import export_text
from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.files import write_json, write_tensors
from filmstrip.inference import inference
from filmstrip.nn.lora import merge
from filmstrip.objectives.language import VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.text import TextModel
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run
from filmstrip.runs.hub_language import described_in

_LENGTH, _IDS = 9, 30


def export_language(source: str, objective: Objective, run: Run, out: Path, format: str) -> None:
    """Write a run's model, its adaptation merged, or (``peft``) its adaptation.

    A model that began as a published one keeps what that says beside weights: its tokenizer, its preprocessing.

    Raises:
        UserError: the library has no such model, what it reads says something else, or nothing is adapted.
    """
    if isinstance(objective, TextModel) and format == "transformers":
        export_text(source, objective, run, out)
        return
    if not isinstance(objective, VideoLanguage) or not isinstance(run.objective, VideoLanguageConfig):
        raise UserError(f"transformers has no network like {type(objective).__name__}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder) / out.name
        written.mkdir()
        if format == "peft":
            config, weights = objective.to_peft()
            base = run.init if run.objective.published else run.objective.decoder_run
            write_json(config | {"base_model_name_or_path": base}, written / "adapter_config.json")
            write_tensors(weights, written / "adapter_model.safetensors")
            said = "the adaptation of the language model"
            found = None
        else:
            merge(objective.decoder)
            config, weights = _whole(source, objective, run, written)
            write_json(config, written / "config.json")
            write_tensors({n: x.contiguous() for n, x in weights.items()}, written / "model.safetensors")
            said = f"{config['architectures'][0]} of transformers"
            found = difference(
                "transformers", lambda: both(objective, read_in_transformers(config, written), run.data.clip)
            )
        shutil.move(written, out)
    print(f"{out}: {said}, {sum(tensor.nbytes for tensor in weights.values()) / 1e6:.1f} MB")
    if format == "peft":
        return
    tell_difference(found, "transformers")


def _whole(
    source: str, objective: VideoLanguage, run: Run, written: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The ``config.json`` and the weights; what goes with them is written."""
    published: dict[str, Any] = {}
    others = tokenizer_files(Path(source))
    if run.objective.published and run.init is not None:  # type: ignore[attr-defined]  # seen to by the caller
        published, others = described_in(run.init)
    config, weights = objective.to_transformers()
    for path in others:
        shutil.copyfile(path, written / path.name)
    if published:
        for part, size in objective.told_by_data:
            published[part] = {**published[part], size: config[part][size]}
        config = published
    return config, weights


@torch.no_grad()
def both(objective: VideoLanguage, network: Any, clip: Clip) -> tuple[Tensor, Tensor]:
    """Logits of texts about random video, by ``transformers``' model and by ours, of the ids after the visual."""
    generator = torch.Generator().manual_seed(0)
    single = objective.one_frame_in_transformers or network.config.model_type == "instructblip"
    height, width = objective.entered(clip)
    shape = (2, 1 if single else clip.num_frames, 3, height, width)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    config = network.config
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index", "vision_start_token_id")
    places = {name: getattr(config, name, None) for name in names}
    free = [i for i in range(3, objective.decoder.config.vocab_size) if i not in places.values()]
    free = [i for i in free if i not in objective.placeholders.tolist()][:_IDS]
    text = torch.tensor(free)[torch.randint(len(free), (2, _LENGTH), generator=generator)]
    text[:, 1] = objective.placeholders[0]
    with inference(objective):
        told = {"text": text, "text_length": torch.full((2,), _LENGTH)}
        ours = objective.logits(objective.in_text(objective.see(video), told), text, told["text_length"])[:, 1:]
        inputs = objective.in_transformers(video, text)
    is_video = "pixel_values_videos" in inputs or config.model_type == "instructblipvideo"
    order = names if not is_video else (names[1], names[3], *names)
    place = next(found for name in order if (found := places[name]) is not None)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == -1, place)
    theirs = network(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
    return theirs[:, -ours.shape[1] - 1 : -1], ours
