"""Clips of a robot with its actions, each with a prompt: a film of another body that does the same task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Data
from filmstrip.data.kinds.clips import ACTION, LABEL, VIDEO, ClipInfo, Clips, draw_clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.sample import Sample, Source
from filmstrip.data.texts import TEXT, TEXT_LENGTH, as_tokens
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.tokenizers import ByteTokenizer
from filmstrip.video.clips import read_clips
from filmstrip.video.decode import open_video

ROBOT, PROMPTS = "robot", "prompts"
"""Folders of the two bodies' films, each with the same classes."""
VOCABULARY = ByteTokenizer()
"""Tokenizer of the names of tasks."""


@dataclass(frozen=True, kw_only=True)
class Prompted(Kind):
    """Clips of ``robot/``, with actions, each with a film of ``prompts/`` of the same class and split, the whole film
    that the clip is from, and the name of the task."""

    specification: ClassVar[Specification] = Specification(
        {
            "video": VIDEO,
            "action": replace(ACTION, when=""),
            "prompt": of("B P C H W", torch.uint8, "frames of another body's film of the same task, in order"),
            "film": of("B P C H W", torch.uint8, "frames of the whole film that the clip is from, in order"),
            "label": replace(LABEL, meaning="task", when=""),
            "text": replace(TEXT, meaning="bytes of the task's name, followed by padding"),
            "text_length": TEXT_LENGTH,
            **COMMON,
        }
    )

    prompt_frames: Count = 16
    """Number of frames of a prompt, and of the robot's own film."""
    max_length: Count = 24
    """Number of bytes of a task's name, its end and padding included; longer names are cut."""

    def open(self, data: Data) -> PromptedSource:
        """The robot's films in ``data.path``, or of a synthetic set, with prompts for each.

        Raises:
            UserError: one of the two folders is missing, the robot's films have no actions that are vectors, or a
                task has no prompts.
        """
        if data.path is None and data.synthetic is None:
            raise UserError("no data was provided: set data.path to a folder with robot/ and prompts/ (--data PATH)")
        root = Path(data.path) if data.path is not None else data.synthetic.generate()  # type: ignore[union-attr]
        for part in (ROBOT, PROMPTS):
            if not (root / part).is_dir():
                raise UserError(
                    f"{root} has no folder {part}/: the robot's films with actions are read from {ROBOT}/TASK/*.mp4, "
                    f"and films of others that do the same tasks from {PROMPTS}/TASK/*.mp4"
                )
        robot = Clips().open(data.at(root / ROBOT))
        prompts = Clips(actions=False).open(data.at(root / PROMPTS))
        if robot.actions is None or robot.actions.discrete:
            raise UserError(f"{robot.root} has no actions that are vectors (NAME.actions.npz beside each film)")
        shown: dict[tuple[str, str], list[str]] = {}
        for sample in prompts.samples:
            if sample.label is not None and sample.offset is None:
                shown.setdefault((prompts.classes[sample.label], sample.split), []).append(sample.path)
        found = []
        for sample in robot.samples:
            task = "" if sample.label is None else robot.classes[sample.label]
            if not (films := shown.get((task, sample.split))):
                raise UserError(
                    f"{prompts.root} has no film of the task {task!r} in the split {sample.split!r}, which "
                    f"{sample.name} is to be shown"
                )
            values = {each.name: getattr(sample, each.name) for each in fields(Sample)}
            found.append(PromptedSample(**values, prompts=tuple(films), task=task, reads=self))
        return PromptedSource(
            root=root, classes=robot.classes, samples=tuple(found), directional=True, actions=robot.actions
        )

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a clip, of a prompt (``P``) and of a task's name (``L``)."""
        return {**Clips().sizes(data, network), "P": self.prompt_frames, "L": self.max_length}

    def told_sizes(self, data: Data, info: ClipInfo) -> dict[str, int]:
        """The same, with the actions and tasks of the data."""
        return self.sizes(data, None) | {"A": info.action_dim, "K": len(info.classes) or 1}

    def shown(self, data: Data) -> str:
        """Those of clips, and the length of prompts."""
        return f"{Clips().shown(data)} with prompts of {self.prompt_frames} frames"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ClipInfo:
        """See :meth:`Kind.example_info`."""
        return ClipInfo(**told, action_dim=sizes.get("A", 0) or 2)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Drifting clips whose prompt has the brightness that the actions follow; see :meth:`Kind.example`."""
        frames, length = sizes.get("P", 4), sizes.get("L", 8)
        sizes = {**sizes, "A": sizes.get("A", 0) or 2, "S": 0}
        batch = draw_clips(sizes, generator)
        label = batch["label"]
        level = 255 * (label + 1) / (sizes["K"] + 1)
        shape = (frames, 3, sizes["H"], sizes["W"])
        noise = torch.randint(-20, 21, (len(label), *shape), generator=generator)
        film = torch.rand(len(label), frames, 1, 1, 1, generator=generator) * 80
        batch["prompt"] = (level[:, None, None, None, None] + noise).clamp(0, 255).byte()
        batch["film"] = (batch["prompt"].float() * 0.7 + film).clamp(0, 255).byte()
        batch["action"] = (level / 127.5 - 1)[:, None, None].expand(-1, sizes["T"], sizes["A"]).contiguous()
        named = [as_tokens(VOCABULARY, f"t{i}", length) for i in label.tolist()]
        batch["text"], batch["text_length"] = (torch.stack(list(part)) for part in zip(*named))
        return batch


@dataclass(frozen=True, kw_only=True)
class PromptedSample(Sample):
    """A film of the robot, with the films that may show its task."""

    kind: ClassVar[type[Kind]] = Prompted
    in_turn: ClassVar[bool] = False

    prompts: tuple[str, ...]
    """Paths of the films of others at the same task."""
    task: str
    """Name of the task."""
    reads: Prompted

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Clips as of any sample, each with a prompt of its own draw, or the next one in turn without ``rng``; frames
        of whole films are drawn from equal parts of them, or are the middles of these."""
        rows = super().cut(data, rng=rng, num_clips=num_clips, num_crops=num_crops, actions=actions)
        text, count = as_tokens(VOCABULARY, self.task.replace("_", " "), self.reads.max_length)
        found = []
        for number, row in enumerate(rows):
            chosen = number % len(self.prompts) if rng is None else int(rng.integers(len(self.prompts)))
            prompt, film = (self._whole(path, data, rng) for path in (self.prompts[chosen], self.path))
            told = {"prompt": prompt, "film": film, "text": text}
            found.append(replace(row, content={**row.content, **told, "text_length": count}))
        return found

    def _whole(self, path: str, data: Data, rng: np.random.Generator | None) -> Tensor:
        return whole_film(path, self.reads.prompt_frames, data, rng)


def whole_film(path: str | Path, frames: int, data: Data, rng: np.random.Generator | None = None) -> Tensor:
    """So many frames of a film in order, ``P 3 H W`` uint8 of the size of clips: the middles of equal parts of it, or
    one of each at random with ``rng``.

    Raises:
        DecodeError, OSError: it cannot be read.
    """
    with open_video(str(path), backend=data.backend) as decoder:
        sampling: Literal["uniform", "segments"] = "uniform" if rng is None else "segments"
        [clip] = read_clips(decoder, num_frames=frames, sampling=sampling, size=data.clip.size, rng=rng)
    return clip.video


@dataclass(frozen=True, kw_only=True)
class PromptedSource(Source):
    """Films of a robot, with prompts."""

    kind: ClassVar[type[Kind]] = Prompted
