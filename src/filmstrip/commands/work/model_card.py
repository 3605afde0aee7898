"""The page of a model on the Hugging Face Hub: how it was made and how it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filmstrip import __version__
from filmstrip.data.config import Clip
from filmstrip.report.run import evaluated
from filmstrip.runs.config import Run

MAX_CLASSES = 30
"""Maximum number of classes that a page names."""
_TASKS = {"ForVideoClassification": "video-classification"}
"""Kinds of models that the Hub knows, by the end of the class's name."""


def model_card(source: str, run: Run, config: dict[str, Any], classes: tuple[str, ...]) -> str:
    """The Markdown page of a run that was exported for ``transformers`` with this ``config.json``."""
    model = config["architectures"][0]
    method = type(run.objective).__name__.removesuffix("Config")
    task = next((f"pipeline_tag: {task}\n" for end, task in _TASKS.items() if model.endswith(end)), "")
    parts = [
        f"---\nlibrary_name: transformers\n{task}tags:\n- video\n- filmstrip\n---\n",
        f"# {Path(source).resolve().name}\n",
        f"`{model}` of transformers, trained as {method} by Filmstrip {__version__}. {_clips(run.data.clip)}\n",
    ]
    if figures := evaluated(Path(source)):
        parts.append("| evaluation | value |\n|---|---:|\n" + "".join(f"| {n} | {v} |\n" for n, v in figures))
    if classes:
        named = ", ".join(classes[:MAX_CLASSES])
        parts.append(f"{len(classes)} classes: {named}{', ...' if len(classes) > MAX_CLASSES else ''}.\n")
    parts.append(_use(model, run.data.clip))
    return "\n".join(parts)


def _clips(clip: Clip) -> str:
    every = f", {clip.stride} video frames apart," if clip.sampling == "dense" else f" ({clip.sampling})"
    return f"It sees clips of {clip.num_frames} frames{every} of {clip.size} x {clip.size} pixels."


def _use(model: str, clip: Clip) -> str:
    if not model.endswith("ForVideoClassification"):
        return _python(f"from transformers import {model}", "", f"model = {model}.from_pretrained(FOLDER_OR_NAME)")
    processor = "AutoVideoProcessor" if model.startswith("VJEPA2") else "AutoImageProcessor"
    classify = _python(
        f"from transformers import {processor}, {model}",
        "",
        f"processor = {processor}.from_pretrained(FOLDER_OR_NAME)",
        f"model = {model}.from_pretrained(FOLDER_OR_NAME)",
        f'pixels = processor(frames, return_tensors="pt")  # {clip.num_frames} images, H W 3, uint8',
        "model.config.id2label[model(**pixels).logits.argmax().item()]",
    )
    return f"{classify}\nOr: `filmstrip predict FOLDER_OR_NAME clip.mp4`.\n"


def _python(*lines: str) -> str:
    return "\n".join(("```python", *lines, "```", ""))
