"""Trained editors of video, from a run folder: files and prompts in, edited videos out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.config import Clip
from filmstrip.data.depth import depth_file, read_depth, shown_depth
from filmstrip.data.edits import FRAMES, MOVING
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.texts import tokenised
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.frame_editing import edit_frame
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import Objective, VideoEdit, VideoEditor
from filmstrip.runs.hub import is_on_hub
from filmstrip.runs.loading import load_objective
from filmstrip.text.tokenizers import TextTokenizer, open_tokenizer
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import Request
from filmstrip.video.geometry import centre_crop
from filmstrip.weights.hub import CONFIG

FPS = 4.0
"""Frames per second of MoCA's clips."""
_FRAMES = 8  # and how many those have


class TrainedEditor:
    """An editor, and how it reads videos and prompts."""

    def __init__(
        self,
        objective: Objective,
        clip: Clip,
        reads: Captioned,
        tokenizer: TextTokenizer,
        *,
        num_frames: int | None = None,
    ) -> None:
        """``num_frames`` are edited, by default as many as the clips of training have, or 8 for single images."""
        self.objective = objective
        self.num_frames = num_frames or (clip.num_frames if clip.num_frames > 1 else _FRAMES)
        self.size = clip.size
        self.reads = reads
        self.tokenizer = tokenizer

    @property
    def method(self) -> LatentDiffusion:
        """The method.

        Raises:
            UserError: it is none of latent diffusion.
        """
        if not isinstance(self.objective, LatentDiffusion):
            raise UserError(f"a {type(self.objective).__name__} is no latent diffusion: give a run of editing.*")
        return self.objective

    @property
    def config(self) -> LatentDiffusionConfig:
        """Settings of the method.

        Raises:
            UserError: it is none of latent diffusion.
        """
        return self.method.config

    def clip(self, path: Path, *, fps: float = FPS, repeat_last: bool = False) -> Tensor:
        """The beginning of a video, ``T 3 H W`` uint8: the centre square at the run's size, ``fps`` frames a second.

        Raises:
            DecodeError: the file cannot be read.
            UserError: it is shorter than a clip, and its last frame is not to be repeated.
        """
        with open_video(path) as decoder:
            info = decoder.info
            times = np.arange(self.num_frames) / fps
            length = info.duration if decoder.times().size else 0.0
            if times[-1] >= length and not repeat_last:
                raise UserError(
                    f"{path} lasts {length:.2f} s, and a clip is {self.num_frames} frames at {fps:g} a second: give "
                    "a longer video, a higher --fps, or --repeat-last"
                )
            start = float(decoder.times()[0])
            size = (self.size, self.size)
            crop = centre_crop(info.height, info.width, size)
            (frames,) = decoder.read([Request(start + times, crop, size)])
        return frames.video

    def frame(self, path: Path) -> Tensor:
        """An image as a first frame, ``3 H W`` uint8: its centre square at the run's size."""
        size = (self.size, self.size)
        with open_video(path) as decoder:
            crop = centre_crop(decoder.info.height, decoder.info.width, size)
            (frames,) = decoder.read([Request([0.0], crop, size)])
        return frames.video[0]

    def depth(self, video: Path, given: str | None = None, *, fps: float = FPS, repeat_last: bool = False) -> Tensor:
        """Depth maps of what :meth:`clip` reads, ``T 1 H W`` float32, larger where things are nearer.

        They are ``given`` as a file of arrays (``.npz``, ``.npy``), as a film or folder of grey pictures, or by a
        network in the Hub's layout that estimates them; by default as ``clip.depth.npz`` beside ``clip.mp4``.

        Raises:
            DecodeError: a file cannot be read.
            UserError: there are none, they are of fewer frames, or the network is of another kind.
        """
        if given is None:
            own = depth_file(video)
            if not own.is_file():
                raise UserError(
                    f"a {type(self.objective).__name__} edits by depth maps of the source, and there is no {own}: "
                    "give a file of them, a film in grey, or a network that estimates them (--depth FILE, "
                    "hf:OWNER/NAME or its folder)"
                )
            given = str(own)
        place = Path(given)
        if is_on_hub(given) or (place / CONFIG).is_file():
            from filmstrip.runs.depth_models import estimate_depth  # few edits need its rooms

            clip = self.clip(video, fps=fps, repeat_last=repeat_last)
            return estimate_depth(given, clip, device_of(self.objective))
        if place.suffix not in (".npz", ".npy"):
            return self.clip(place, fps=fps, repeat_last=repeat_last).float().mean(dim=1, keepdim=True)
        with open_video(video) as decoder:
            info, times = decoder.info, decoder.times()
            wanted = times[0] + np.arange(self.num_frames) / fps
            numbers = (np.searchsorted(times, wanted + 1e-6, side="right") - 1).clip(min=0)
            crop = centre_crop(info.height, info.width, (self.size, self.size))
        shown = (
            crop.left / info.width,
            crop.top / info.height,
            (crop.left + crop.width) / info.width,
            (crop.top + crop.height) / info.height,
        )
        try:
            return shown_depth(read_depth(place), numbers.tolist(), shown, self.size)
        except UserError as error:
            raise UserError(f"{place}, for {video}: {error}") from None

    def request(
        self,
        videos: Tensor,
        source_prompts: Sequence[str],
        edit_prompts: Sequence[str],
        kind: str,
        *,
        seeds: Sequence[int],
        frames: Tensor | None = None,
        depth: Tensor | None = None,
        guidance: Mapping[str, float] | None = None,
        **options: Any,
    ) -> VideoEdit:
        """Edits of one type (:data:`filmstrip.data.edits.TYPES`) of ``B T 3 H W`` videos, on the editor's device."""
        device = device_of(self.objective)
        source, source_length = self._ids(source_prompts)
        text, text_length = self._ids(edit_prompts)
        return VideoEdit(
            video=videos.to(device),
            source_text=source.to(device),
            source_length=source_length.to(device),
            text=text.to(device),
            text_length=text_length.to(device),
            seeds=torch.tensor(seeds, dtype=torch.int64, device=device),
            keeps_motion=kind not in MOVING,
            frame=None if frames is None else frames.to(device),
            frame_by=FRAMES[kind],
            depth=None if depth is None else depth.to(device),
            guidance=guidance or {},
            **options,
        )

    def edit(self, request: VideoEdit) -> Tensor:
        """Edited videos ``B T 3 H W`` in 0..1, on the CPU."""
        with inference(self.objective):
            return cast(VideoEditor, self.objective).edit(request).cpu()

    def edit_frames(self, request: VideoEdit) -> Tensor:
        """First frames ``B 3 H W`` in 0..1 as an edit wants them, on the CPU.

        Raises:
            UserError: this method edits no frames.
        """
        if not isinstance(self.objective, LatentDiffusion):
            raise UserError(f"a {type(self.objective).__name__} edits no frames: give a run of editing.sdedit")
        with inference(self.objective):
            return edit_frame(self.objective, request).cpu()

    def _ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return tokenised(self.tokenizer, texts, self.reads.max_length, start=self.reads.start)


def load_editor(
    folder: str | Path,
    device: torch.device | str | None = None,
    *,
    by: ObjectiveConfig | None = None,
    num_frames: int | None = None,
) -> TrainedEditor:
    """A trained editor from its run folder, or the method ``by`` with the network of that run.

    Raises:
        UserError: this is no run folder, what it holds edits no videos, or the method cannot edit with its network.
    """
    objective, run = load_objective(folder, device)
    if not isinstance(objective, VideoEditor) or not isinstance(run.data.reads, Captioned):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which edits no videos: give a run of editing.*"
        )
    if by is not None:
        objective = with_network(by, objective, folder)
    return TrainedEditor(
        objective, run.data.clip, run.data.reads, open_tokenizer(Path(folder)), num_frames=num_frames
    )


def with_network(config: ObjectiveConfig, given: Objective, folder: str | Path) -> LatentDiffusion:
    """A method of editing with the network of a trained one, on its device; ``folder`` says in errors where that is
    from.

    Raises:
        UserError: one of them is no latent diffusion, or the method has conditions of its own to learn.
    """
    if not isinstance(config, LatentDiffusionConfig) or not isinstance(given, LatentDiffusion):
        raise UserError(
            f"a {type(config).__name__.removesuffix('Config')} does not edit by the {type(given).__name__} in "
            f"{folder}: --by takes a system of latent diffusion, editing.*, and a run of another one"
        )
    config = config.with_network_of(given.config)
    objective = config.build()
    if objective.order != ("text",):
        raise UserError(
            f"a {type(objective).__name__} has conditions of its own to learn, {', '.join(objective.order)}: give a "
            "run of it, and leave out --by"
        )
    taken = objective.taken_from(given)
    assert taken is not None, "both are latent diffusion"
    objective.load_state_dict(taken, strict=False)
    objective.tokenizer, objective.text, objective.text_in = given.tokenizer, given.text, given.text_in
    objective.latent_scale = given.latent_scale
    return objective.to(device_of(given)).eval()
