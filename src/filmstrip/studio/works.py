"""Works on a film: the commands that answer a request, and their answers as what a page draws.

An answer is a dictionary with any of ``rows`` (named rows of spans over the film's timeline), ``boxes`` (boxes with
texts, at times), ``clips`` (films that the command wrote, with captions), ``top`` (classes with probabilities) and
``text``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch

from filmstrip.data.features import FeatureSource
from filmstrip.data.kinds.actors import ActorSample
from filmstrip.errors import UserError
from filmstrip.files import write_text
from filmstrip.runs.config import read_config
from filmstrip.runs.contents import CONFIG
from filmstrip.studio.films import Film, cut, source_of
from filmstrip.studio.jobs import Job

Answer = dict[str, Any]
Options = Mapping[str, Any]
MARGIN = 0.5
"""Time that a box is shown before and after its key frame, seconds."""


def _json(job: Job, *arguments: str) -> Any:
    """The JSON that a command prints."""
    out = job.folder / "output.json"
    job.run([*arguments, "--json"], out)
    return json.loads(out.read_bytes())


def classify(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The most probable class of each clip along the film."""
    said = _json(job, "predict", str(folder), str(film.path), "--clips", str(options["clips"]), "--top-k", "5")
    found = said["files"][0]
    if "reason" in found:
        raise UserError(f"the film cannot be read: {found['reason']}")
    clips = found["timeline"]
    # Clips may overlap: each is drawn where its middle is the nearest.
    middles = [(clip["start"] + clip["end"]) / 2 for clip in clips]
    edges = [clips[0]["start"], *((a + b) / 2 for a, b in pairwise(middles)), clips[-1]["end"]]
    spans = [
        {
            "start": start,
            "end": end,
            "label": clip["label"],
            "score": clip["probability"],
            "detail": f"the clip from {clip['start']:.2f} to {clip['end']:.2f} s",
        }
        for (start, end), clip in zip(pairwise(edges), clips)
    ]
    return {"rows": [{"name": "clips", "spans": spans}], "top": found["top"]}


def explain(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The middle clip with a heat map."""
    chosen = ["--class", options["class"]] if options["class"] else []
    out = job.folder / "heat.mp4"
    job.run(["explain", str(folder), str(film.path), "--out", str(out), *chosen], job.folder / "said.txt")
    said = (job.folder / "said.txt").read_text(encoding="utf-8").rpartition(": ")[0]
    caption = f"The middle clip, and the same with the heat map: {said}. Red is where the run looks."
    return {"clips": [{"file": out.name, "caption": caption}]}


def reconstruct(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """Clips of the film, decoded from their tokens."""
    clips = str(options["clips"])
    tokens, out = job.folder / "tokens", job.folder / "decoded"
    level = "latents" if _is_continuous(folder) else "ids"
    files = ["encode", str(folder), str(film.path), "--out", str(tokens), "--level", level, "--clips", clips]
    job.run(files)
    job.run(["decode", str(folder), str(tokens), "--out", str(out)])
    spans = sorted((row.start or 0.0, row.end or 0.0) for row in FeatureSource(tokens).rows)
    shown, row = [], []
    for i, (path, (start, end)) in enumerate(zip(sorted(out.rglob("*.mp4")), spans), 1):
        original = job.folder / f"original-{i}.mp4"
        cut(film, start, end - start, original)
        shown.append({"file": original.name, "caption": f"Clip {i}, {start:.2f} to {end:.2f} s, as it is"})
        decoded = path.rename(job.folder / f"decoded-{i}.mp4")  # below the path of the film until now
        shown.append({"file": decoded.name, "caption": f"Clip {i}, decoded from its tokens"})
        row.append({"start": start, "end": end, "label": f"clip {i}"})
    return {"clips": shown, "rows": [{"name": "encoded", "spans": row}]}


def _is_continuous(folder: Path) -> bool:
    with torch.device("meta"):
        return read_config(folder / CONFIG).objective.build().codebook_size is None


def generate(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """Samples, maybe of a class, maybe continuing the film."""
    conditions = ["--condition"] * bool(options["class"] or options["context"])
    conditions += [options["class"]] if options["class"] else []
    conditions += [str(film.path)] if options["context"] else []
    context = ["--context-frames", str(options["context"])] if options["context"] else []
    out = job.folder / "samples.mp4"
    number, seed = str(options["samples"]), str(options["seed"])
    job.run(
        ["generate", str(folder), *conditions, *context, "--num-samples", number, "--seed", seed, "--out", str(out)]
    )
    begin = f", each begins with {options['context']} frames of the film" if options["context"] else ""
    return {"clips": [{"file": out.name, "caption": f"{number} samples, seed {seed}{begin}"}]}


def detect(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The actions in boxes, by actor."""
    table = job.folder / "boxes.csv"
    write_text(options["boxes"] or own_boxes(folder, film), table)
    arguments = ("detect", str(folder), str(film.path), "--boxes", str(table), "--top-k", "2")
    actors = _json(job, *arguments)["actors"]
    boxes = [
        {
            "start": key["second"] - MARGIN,
            "end": key["second"] + MARGIN,
            "box": key["box"],
            "track": actor["actor"],
            "text": ", ".join(f"{each['name']} {each['probability']:.0%}" for each in key["actions"][:1]),
        }
        for actor in actors
        for key in actor["key_frames"]
    ]
    rows = [{"name": f"actor {actor['actor']}", "spans": list(_merged(actor["key_frames"]))} for actor in actors]
    return {"boxes": boxes, "rows": rows, "moves": True}


def _merged(keys: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Spans of successive key frames with the same most probable action."""
    for label, group in groupby(keys, key=lambda key: key["actions"][0]["name"]):
        keys = list(group)
        score = sum(key["actions"][0]["probability"] for key in keys) / len(keys)
        start, end = keys[0]["second"] - MARGIN, keys[-1]["second"] + MARGIN
        yield {"start": max(0.0, start), "end": end, "label": label, "score": score}


def own_boxes(folder: Path, film: Film) -> str:
    """The boxes that the run's own data have for a film, as a table in AVA's format.

    Raises:
        UserError: they have none.
    """
    rows = [
        [film.path.stem, f"{sample.moment:.6f}", *(f"{side:.6f}" for side in actor.box)]
        for sample in source_of(folder).samples
        if isinstance(sample, ActorSample) and Path(sample.path) == film.path
        for actor in sample.actors
    ]
    if not rows:
        raise UserError("the run's data have no boxes for this film: give a table of boxes in AVA's format")
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def anticipate(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """What will be touched next, after each of several moments."""
    arguments = ("anticipate", str(folder), str(film.path), "--every", str(options["every"]), "--top-k", "3")
    moments = _json(job, *arguments)["moments"]
    boxes, spans = [], []
    for moment, following in zip(moments, [*moments[1:], None]):
        end = following["second"] if following else moment["second"] + options["every"]
        for number, contact in enumerate(moment["contacts"]):
            text = f"{contact['verb']} {contact['noun']} in {contact['seconds']:.1f} s"
            boxes.append(
                {"start": moment["second"], "end": end, "box": contact["box"], "track": number + 1, "text": text}
            )
            if not number:
                span = {"start": moment["second"], "end": end, "label": f"{contact['verb']} {contact['noun']}"}
                spans.append(span | {"score": contact["score"], "detail": text})
    return {"boxes": boxes, "rows": [{"name": "next contact", "spans": spans}]}


def forecast(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The steps that are expected after each clip."""
    timeline = _json(job, "forecast", str(folder), str(film.path))["timeline"]
    rows = []
    for place in range(len(timeline[-1]["next"])):
        spans = []
        for moment in timeline:
            ranked = moment["next"][place]
            detail = f"after {moment['end']:.1f} s: " + ", ".join(f"{name} {p:.0%}" for name, p in ranked)
            span = {"start": moment["start"], "end": moment["end"], "label": ranked[0][0], "score": ranked[0][1]}
            spans.append(span | {"detail": detail})
        rows.append({"name": "next step" if not place else f"step {place + 1} from there", "spans": spans})
    return {"rows": rows}


def plan(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The steps between two moments, or the actions."""
    start, goal = options["start"], options["goal"]
    if goal <= start:
        raise UserError(f"the goal is at {goal:g} s, and the start at {start:g} s: the goal comes later")
    files = [job.folder / "start.mp4", job.folder / "goal.mp4"]
    for moment, file in zip((start, goal), files):
        cut(film, moment, 1.0, file)
    said = _json(job, "plan", str(folder), *map(str, files))
    if "actions" in said:
        lines = [" ".join(f"{value:.3f}" for value in action) for action in said["actions"]]
        return {"text": "\n".join(f"Action {i}: {line}" for i, line in enumerate(lines, 1))}
    length = (goal - start) / len(said["steps"])
    spans = [
        {
            "start": start + i * length,
            "end": start + (i + 1) * length,
            "label": ranked[0][0],
            "score": ranked[0][1],
            "detail": f"step {i + 1}: " + ", ".join(f"{name} {p:.0%}" for name, p in ranked),
        }
        for i, ranked in enumerate(said["steps"])
    ]
    return {
        "rows": [{"name": "plan", "spans": spans}],
        "text": "A plan has an order and no times: its steps are drawn equally long.",
    }


def answer(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The answer to a question."""
    said = job.folder / "answer.txt"
    job.run(["ask", str(folder), str(film.path), options["question"]], said)
    return {"text": said.read_text(encoding="utf-8").strip()}


def find(job: Job, folder: Path, film: Film, options: Options) -> Answer:
    """The moments that a sentence describes."""
    (said,) = _json(job, "find", str(folder), str(film.path), options["query"])["answers"]
    spans = [{**moment, "label": f"{moment['score']:.0%}"} for moment in said["moments"]]
    rows = [{"name": f"moment {i}", "spans": [span]} for i, span in enumerate(spans, 1)]
    return {"rows": rows}
