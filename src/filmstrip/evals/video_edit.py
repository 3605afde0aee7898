"""Editing of video: how well edits keep the source's motion, and how near they are to the true result.

It reads an ``edits.csv`` (:mod:`filmstrip.data.edits`), as ``filmstrip data make edits`` writes one, beside the data.
True edited videos exist of synthetic edits alone; without them, what needs them is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.depth import depth_file, read_depth
from filmstrip.data.edits import MOVING, TYPES, Edit, read_edits
from filmstrip.data.kinds.captioned import CaptionedSource
from filmstrip.errors import UserError
from filmstrip.evals.frame_metrics import psnr
from filmstrip.inference import device_of
from filmstrip.objectives.latent_diffusion import LatentDiffusion
from filmstrip.objectives.optical_flow import EstimateFlow, FlowEstimator, FlowMethod
from filmstrip.protocols import Objective, VideoEditor, as_float
from filmstrip.runs.editors import FPS, TrainedEditor
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.video.flow import estimate_flow

_MOVING_SHARE = 0.5
"""Share of a clip's largest flow from which on a pixel counts as moving."""


@dataclass(frozen=True, kw_only=True)
class VideoEditing(Evaluation):
    """Edits of test videos by type: error of their flow, PSNR to the true edits, first frames, and consistency."""

    frames: Literal["own", "true"] = "own"
    """First frames: as the method edits them, or the table's edited ones, which leaves the animation to be judged."""
    num_edits: Count | None = None
    """Number of edits of each type, the first ones; none for all."""
    batch_size: Count = 8
    """Number of edits made at once."""
    flow: FlowMethod = "dis"
    """Algorithm that estimates flow here."""
    flow_weights: Path | None = None
    """File with RAFT's weights, large or small, in torchvision's layout."""
    seed: Seed = 0
    """Base seed; edit ``i`` of the table uses ``seed + i``."""

    def check(self, subject: Subject) -> None:
        """The objective edits videos, and there are edits, with edited first frames if those are asked for.

        Raises:
            UserError: something is missing.
        """
        if not isinstance(subject.objective, VideoEditor):
            raise UserError(
                f"{type(subject.objective).__name__} edits no videos: this evaluation needs a run of editing.*"
            )
        if not isinstance(subject.source, CaptionedSource):
            raise UserError("prompts of edits are read as captions are: this evaluation needs captioned clips")
        if self._reads_depth(subject.objective):
            for video in dict.fromkeys(edit.video for edit in read_edits(subject.source.root)):
                read_depth(depth_file(video))
        FlowEstimator(self.flow, self.flow_weights)  # its weights are read before anything is made
        edits = read_edits(subject.source.root)
        if self.frames == "true" and (without := [e for e in edits if e.edited_first_frame is None]):
            raise UserError(f"{len(without)} of {len(edits)} edits have no edited_first_frame: use --frames own")

    @staticmethod
    def _reads_depth(objective: Objective) -> bool:
        return isinstance(objective, LatentDiffusion) and objective.reads_depth

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield each measure over all edits, then by type as ``NAME/TYPE``.

        ``flow_error``: mean distance between the flow of edit and source where the source moves, in pixels a frame;
        over all edits only those count that keep the motion. ``psnr``: to the true edit, and ``source_psnr``: that of
        the unedited source, which an editor has to beat. ``first_frame_psnr``: of the first frame to the true one.
        ``consistency``: PSNR of each frame to the next one, drawn back along its flow.
        """
        assert isinstance(subject.source, CaptionedSource)
        source = subject.source
        editor = TrainedEditor(subject.objective, subject.data.clip, source.reads, source.text_tokenizer)
        estimate = FlowEstimator(self.flow, self.flow_weights).to(subject.device)
        found: dict[str, dict[str, list[float]]] = {}
        numbered = list(enumerate(read_edits(source.root)))
        for kind in TYPES:
            own = [(number, edit) for number, edit in numbered if edit.type == kind][: self.num_edits]
            for first in range(0, len(own), self.batch_size):
                part = own[first : first + self.batch_size]
                for name, values in self._measured(editor, estimate, kind, part).items():
                    found.setdefault(name, {}).setdefault(kind, []).extend(values)
        for name, by_type in found.items():
            counted = [
                v for kind, values in by_type.items() for v in values if name != "flow_error" or kind not in MOVING
            ]
            if counted:
                yield name, sum(counted) / len(counted)
        for name, by_type in found.items():
            for kind, values in by_type.items():
                yield f"{name}/{kind}", sum(values) / len(values)

    def _measured(
        self, editor: TrainedEditor, estimate: FlowEstimator, kind: str, part: list[tuple[int, Edit]]
    ) -> dict[str, list[float]]:
        """The measures of a few edits of one type."""
        edits = [edit for _, edit in part]
        videos = torch.stack([editor.clip(edit.video, fps=FPS) for edit in edits])
        frames = None
        if self.frames == "true":
            frames = torch.stack([editor.frame(e.edited_first_frame) for e in edits if e.edited_first_frame])
        depth = None
        if self._reads_depth(editor.objective):
            depth = torch.stack([editor.depth(edit.video) for edit in edits])
        request = editor.request(
            videos,
            [edit.source_prompt for edit in edits],
            [edit.edit_prompt for edit in edits],
            kind,
            seeds=[self.seed + number for number, _ in part],
            frames=frames,
            depth=depth,
        )
        device = device_of(editor.objective)
        edited, videos = editor.edit(request).to(device), as_float(videos).to(device)
        measured = {
            "flow_error": flow_error(edited, videos, estimate),
            "consistency": consistency(edited, estimate),
        }
        if all(edit.target is not None for edit in edits):
            targets = torch.stack([editor.clip(e.target, fps=FPS) for e in edits if e.target])
            targets = as_float(targets).to(device)
            measured |= {
                "psnr": psnr(edited, targets).mean(dim=1),
                "source_psnr": psnr(videos, targets).mean(dim=1),
                "first_frame_psnr": psnr(edited[:, 0], targets[:, 0]),
            }
        return {name: values.tolist() for name, values in measured.items()}


def flow_error(edited: Tensor, source: Tensor, estimate: EstimateFlow = estimate_flow) -> Tensor:
    """Mean distance between the flows of ``B T 3 H W`` videos where the second one moves: ``B``, pixels a frame."""
    ours, theirs = estimate(edited), estimate(source)
    size = torch.linalg.vector_norm(theirs, dim=2)
    moving = (size >= _MOVING_SHARE * size.amax(dim=(1, 2, 3), keepdim=True)).float()
    distance = torch.linalg.vector_norm(ours - theirs, dim=2)
    return (distance * moving).sum(dim=(1, 2, 3)) / moving.sum(dim=(1, 2, 3)).clamp(min=1)


def consistency(video: Tensor, estimate: EstimateFlow = estimate_flow) -> Tensor:
    """PSNR of frames of ``B T 3 H W`` video to the next ones, drawn back along the flow: mean over frames, ``B``."""
    flow = estimate(video)
    height, width = video.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y]).to(flow) + flow
    size = torch.tensor([width, height]).to(flow)
    grid = (2 * place.movedim(2, -1) + 1) / size - 1
    back = F.grid_sample(
        video[:, 1:].flatten(0, 1), grid.flatten(0, 1), align_corners=False, padding_mode="border"
    ).unflatten(0, flow.shape[:2])
    return psnr(back, video[:, :-1]).mean(dim=1)
