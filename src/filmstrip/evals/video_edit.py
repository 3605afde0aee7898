"""Editing of video: how well edits keep the source's motion, and how near they are to the true result.

It reads an ``edits.csv`` (:mod:`filmstrip.data.edits`), as ``filmstrip data make edits`` writes one, beside the data.
True edited videos exist of synthetic edits alone; without them, what needs them is left out. The edited films can be
kept side by side with those of other methods and runs (:mod:`filmstrip.data.edited_films`). A model of video and text
says how near edits are to source and text (:mod:`filmstrip.evals.edit_similarity`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.depth import depth_file, read_depth
from filmstrip.data.edited_films import (
    SOURCE,
    TABLE,
    TARGET,
    EditedFilm,
    add_edited,
    check_goes_with,
    read_edited,
)
from filmstrip.data.edits import MOVING, TYPES, Edit, read_edits
from filmstrip.data.kinds.captioned import CaptionedSource
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals.edit_similarity import EditSimilarity, edit_similarity
from filmstrip.evals.frame_metrics import psnr
from filmstrip.inference import device_of
from filmstrip.objectives.latent_diffusion import LatentDiffusion
from filmstrip.objectives.optical_flow import EstimateFlow, FlowEstimator, FlowMethod
from filmstrip.progress import counted
from filmstrip.protocols import Objective, VideoEditor, as_float
from filmstrip.runs.editors import FPS, TrainedEditor
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.video import write_video
from filmstrip.video.flow import estimate_flow

log = logging.getLogger(__name__)

_MOVING_SHARE = 0.5
"""Share of a clip's largest flow from which on a pixel counts as moving."""


class _Made(NamedTuple):
    """Edits ``B T 3 H W`` in 0..1, their sources, and the true edits where all are known."""

    edited: Tensor
    sources: Tensor
    targets: Tensor | None


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
    clip: str | None = None
    """Model of video and text for M_sim, M_dir and M_geo: a run folder of one, or SigLIP or CLIP in the Hub's layout
    (a folder or hf:OWNER/NAME), of which frames are compared one by one; none leaves these out."""
    out: Path | None = None
    """Folder to keep the edited films in, side by side with those of other methods, and a page that shows them."""

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
        if self.clip is not None:
            _similarity(self.clip)
        if self.out is not None:
            name = subject.name or type(subject.objective).__name__
            if _folder_name(name) in (SOURCE, TARGET):
                raise UserError(f"films of a method cannot be kept as {name}: give the run folder another name")
            if (self.out / TABLE).is_file():
                films = [self._film(subject, number, edit) for number, edit in enumerate(edits)]
                check_goes_with(self.out, read_edited(self.out), films)

    @staticmethod
    def _reads_depth(objective: Objective) -> bool:
        return isinstance(objective, LatentDiffusion) and objective.reads_depth

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield each measure over all edits, then by type as ``NAME/TYPE``.

        ``flow_error``: mean distance between the flow of edit and source where the source moves, in pixels a frame;
        over all edits only those count that keep the motion. ``psnr``: to the true edit, and ``source_psnr``: that of
        the unedited source, which an editor has to beat. ``first_frame_psnr``: of the first frame to the true one.
        ``consistency``: PSNR of each frame to the next one, drawn back along its flow. With a model of video and
        text, ``m_sim@MODEL``, ``m_dir@MODEL`` and ``m_geo@MODEL``, those of the true edits as ``true_m_dir@MODEL``,
        and in which share of edits they are undefined or clamped.
        """
        assert isinstance(subject.source, CaptionedSource)
        source = subject.source
        editor = TrainedEditor(subject.objective, subject.data.clip, source.reads, source.text_tokenizer)
        estimate = FlowEstimator(self.flow, self.flow_weights).to(subject.device)
        found: dict[str, dict[str, list[float]]] = {}
        numbered = list(enumerate(read_edits(source.root)))
        parts = []
        for kind in TYPES:
            own = [(number, edit) for number, edit in numbered if edit.type == kind][: self.num_edits]
            parts += [(kind, own[first : first + self.batch_size]) for first in range(0, len(own), self.batch_size)]
        with counted(f"edits by {subject.name}".removesuffix(" by "), sum(len(part) for _, part in parts)) as done:
            count = 0
            for kind, part in parts:
                made = self._made(editor, kind, part)
                measured = self._measured(estimate, made, [edit for _, edit in part])
                for name, values in measured.items():
                    found.setdefault(name, {}).setdefault(kind, []).extend(values)
                if self.out is not None and process.rank() == 0:
                    self._keep(self.out, subject, part, made, measured)
                done(count := count + len(part))
        for name, by_type in found.items():
            those = [
                v for kind, values in by_type.items() for v in values if name != "flow_error" or kind not in MOVING
            ]
            if those:
                yield name, sum(those) / len(those)
        for name, by_type in found.items():
            for kind, values in by_type.items():
                yield f"{name}/{kind}", sum(values) / len(values)

    def _made(self, editor: TrainedEditor, kind: str, part: list[tuple[int, Edit]]) -> _Made:
        """A few edits of one type, made."""
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
        targets = None
        if all(edit.target is not None for edit in edits):
            targets = as_float(torch.stack([editor.clip(e.target, fps=FPS) for e in edits if e.target])).to(device)
        return _Made(edited, videos, targets)

    def _measured(self, estimate: FlowEstimator, made: _Made, edits: list[Edit]) -> dict[str, list[float]]:
        """The measures of a few edits."""
        edited, videos, targets = made
        measured = {
            "flow_error": flow_error(edited, videos, estimate),
            "consistency": consistency(edited, estimate),
        }
        if targets is not None:
            measured |= {
                "psnr": psnr(edited, targets).mean(dim=1),
                "source_psnr": psnr(videos, targets).mean(dim=1),
                "first_frame_psnr": psnr(edited[:, 0], targets[:, 0]),
            }
        if self.clip is not None:
            similarity = _similarity(self.clip)
            texts = [edit.source_prompt for edit in edits], [edit.edit_prompt for edit in edits]
            of_edits = similarity(videos, edited, *texts)
            measured |= {f"{name}@{similarity.name}": values for name, values in of_edits.items()}
            if targets is not None:
                true = similarity(videos, targets, *texts)
                measured |= {f"true_{name}@{similarity.name}": true[name] for name in ("m_sim", "m_dir", "m_geo")}
        return {name: values.tolist() for name, values in measured.items()}

    def _keep(
        self,
        out: Path,
        subject: Subject,
        part: list[tuple[int, Edit]],
        made: _Made,
        measured: dict[str, list[float]],
    ) -> None:
        """Write a few edits with their sources and true edits, and what was measured of them."""
        films = []
        for i, (number, edit) in enumerate(part):
            film = self._film(subject, number, edit)
            for path, videos in ((film.film, made.edited), (film.source, made.sources), (film.target, made.targets)):
                if path is not None and videos is not None:
                    write_video(path, videos[i], FPS)
            film.measures.update({name: values[i] for name, values in measured.items()})
            films.append(film if made.targets is not None else replace(film, target=None))
        add_edited(out, films)

    def _film(self, subject: Subject, number: int, edit: Edit) -> EditedFilm:
        """The film of an edit in the folder of films."""
        assert self.out is not None
        method, file = subject.name or type(subject.objective).__name__, f"{number:05d}.mp4"
        return EditedFilm(
            number=number,
            method=method,
            film=self.out / _folder_name(method) / file,
            source=self.out / SOURCE / file,
            target=None if edit.target is None else self.out / TARGET / file,
            source_prompt=edit.source_prompt,
            edit_prompt=edit.edit_prompt,
            type=edit.type,
            run=subject.run,
        )


def _folder_name(method: str) -> str:
    return method.replace(":", "-").replace("/", "-")


@functools.lru_cache(maxsize=1)
def _similarity(source: str) -> EditSimilarity:
    """The model of video and text, which is loaded once for several methods."""
    found = edit_similarity(source)
    log.warning("M_sim, M_dir and M_geo are by %s", found.described)
    return found


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
