"""Following a live source with a detector of persons: what each of them does, line by line."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import torch

from filmstrip.commands.detect import Detect
from filmstrip.commands.work.live import follow, line, named
from filmstrip.data.boxes import iou
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds.actors import whole_size
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import Detector
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.runs.person_detectors import load_person_detector
from filmstrip.video.live import LiveSource, Window


class Numbers:
    """Numbers of actors that stay the same from one window to the next, as far as their boxes overlap."""

    def __init__(self, min_iou: float, max_gap: float) -> None:
        self._min_iou, self._max_gap = min_iou, max_gap
        self._last: dict[int, tuple[float, torch.Tensor]] = {}
        self._count = 0

    def of(self, second: float, actors: Sequence[Actor]) -> list[int]:
        """The number of each actor; what overlaps most is matched first."""
        boxes = torch.tensor([actor.box for actor in actors], dtype=torch.float64).view(-1, 4)
        going = {n: box for n, (seen, box) in self._last.items() if second - seen <= self._max_gap}
        pairs = sorted(
            (-overlap, number, place)
            for number, box in going.items()
            for place, overlap in enumerate(iou(box[None], boxes)[0].tolist())
            if overlap >= self._min_iou
        )
        found: dict[int, int] = {}
        for _, number, place in pairs:
            if place not in found and number not in found.values():
                found[place] = number
        for place in range(len(boxes)):
            if place not in found:
                self._count += 1
                found[place] = self._count
        self._last |= {number: (second, boxes[place]) for place, number in found.items()}
        return [found[place] for place in range(len(boxes))]


def detect_live(command: Detect) -> None:
    """Print what each person in the newest window does, until the source ends, the time is over, or Ctrl-C.

    Raises:
        UserError: there is no detector, the source cannot be opened or breaks off, or the run is no detector of
            actions; or a file was to be written.
    """
    if not command.detector:
        raise UserError("boxes of a live source come from a detector: give --detector in place of --boxes")
    for name, given in (("--out", command.out), ("--csv", command.csv), ("--save-boxes", command.save_boxes)):
        if given is not None:
            raise UserError(f"a live source is not written: leave out {name} (--json prints what is found)")
    with LiveSource(command.video) as source:
        objective, run = load_objective(command.run)
        if not isinstance(objective, Detector):
            raise UserError(f"{type(objective).__name__} is not a detector: detect needs a run of detection.*")
        classes, clip, device = load_data_info(command.run).classes, run.data.clip, device_of(objective)
        detector = load_person_detector(
            command.detector,
            name=command.detector_class,
            min_score=command.min_score,
            trusted=command.trust_detector,
        )
        numbers = Numbers(command.min_iou, command.max_gap)

        def say(window: Window) -> None:
            middle = len(window.frames) // 2
            second = round(float(window.times[middle]), 3)
            (actors,) = detector(window.only(middle).video())
            does: list[list[tuple[str, float]]] = []
            if actors:
                video = window.video(size=whole_size(window.info, clip))[None].to(device)
                boxes = torch.tensor([[actor.box for actor in actors]], device=device)
                with inference(objective):
                    scores = objective.detect(video, boxes)[0].float().cpu()
                best = scores.topk(min(command.top_k, len(classes)), dim=-1)
                does = [
                    [(classes[i], p) for i, p in zip(*row)]
                    for row in zip(best.indices.tolist(), best.values.tolist())
                ]
            found = list(zip(numbers.of(second, actors), actors, does))
            if command.json:
                told = [
                    {"actor": n, "box": list(actor.box), "actions": [{"name": c, "probability": p} for c, p in said]}
                    for n, actor, said in found
                ]
                late = round(time.monotonic() - window.came, 3)
                row = {"second": second, "actors": told, "late": late, "dropped": window.dropped}
                print(json.dumps(row), flush=True)
                return
            for number, _, said in found:
                print(line(second, f"actor {number:<4d} {named(said)}"), flush=True)
            if not found:
                print(line(second, f"no {command.detector_class}"), flush=True)

        follow(source, clip, say, command.every or 1.0, None, command.seconds)
