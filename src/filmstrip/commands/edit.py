"""``filmstrip edit``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import AnyNumber, Count, CountOrZero, Rate, Seed
from filmstrip.commands.command import Command, File, RunFolder
from filmstrip.data.edits import FrameEditing


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Scales of guidance; by default the run's own."""

    image: AnyNumber | None = None
    """Scale of the first frame."""
    text: AnyNumber | None = None
    """Scale of the edit's text."""
    depth: AnyNumber | None = None
    """Scale of the source's depth, of editing.depth_control."""
    motion: AnyNumber | None = None
    """Scale of the source's motion; edits of the motion itself have 0."""


@dataclass(frozen=True, kw_only=True)
class OnVideo:
    """Training on the video to edit, of methods that do; by default the method's own."""

    steps: CountOrZero | None = None
    """Number of steps."""
    lr: Rate | None = None
    """Learning rate."""


@dataclass(frozen=True, kw_only=True)
class Edit(Command):
    """Edit a video by words with a trained editor, such as MoCA: its first frame, then all of it.

    The first two seconds are edited: 8 frames at 4 per second. ``--by`` edits by another method with the network of
    the run.
    """

    usage = 'RUN VIDEO --from "WHAT IT SHOWS" --to "WHAT IT IS TO SHOW" --type TYPE [--out edited.mp4] [options]'
    run: RunFolder
    """Run folder of an editor (editing.*)."""
    video: File
    """Video to edit."""
    to: str
    """Text of what the edited video is to show."""
    source: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Text of what the video shows; needed where the first frame is edited by Prompt-to-Prompt, and by methods that
    compare an edit with its source."""
    by: str | None = None
    """System that edits with the run's network in place of its own, such as editing.masactrl, whose preset, if one is
    named (SYSTEM:PRESET), has the settings; of tiny unless named."""
    type: str
    """Type of the edit: style, background, object, motion, multi-spatial (several of the first three) or multi-motion
    (one of them and the motion). It says how the first frame is edited, and whether things move as in the source."""
    out: Path = Path("edited.mp4")
    """File to write, .mp4, .gif or .webp; several candidates are numbered."""
    frame: Path | None = None
    """Image of the first frame as it is to be, of any editor of images; by default the run edits it."""
    editor: Path | None = None
    """Run folder that edits the first frame, such as one of editing.sdedit:text_to_image_256; by default the same."""
    first_frame: Path | None = None
    """Image to write with the edited first frame."""
    depth: str | None = None
    """Depth maps of the video, for editing.depth_control: a file with a map for each frame (.npz, .npy; larger is
    nearer), a film in grey, or a network that estimates them (hf:OWNER/NAME, or its folder); by default
    NAME.depth.npz beside the video."""
    frame_editing: FrameEditing = field(default_factory=FrameEditing)
    """Settings of editing the first frame."""
    guidance: Scales = field(default_factory=Scales)
    """Scales of guidance."""
    steps: Count | None = None
    """Number of steps of sampling; by default the run's own."""
    candidates: Count = 1
    """Number of edits to choose from: with seeds of their own, and text and motion scaled by 1 and 1.5 in turn."""
    clip: str | None = None
    """Model of video and text that says how near each candidate is to source and text (M_sim, M_dir, M_geo), the best
    M_geo first: a run folder of one, or SigLIP or CLIP in the Hub's layout. Needs --from."""
    seed: Seed = 0
    """Base seed; candidate i depends on seed + i."""
    tuning: OnVideo = field(default_factory=OnVideo)
    """Training on the video, of editing.tune_a_video and editing.dreamix."""
    frames: Count | None = None
    """Number of frames to edit; by default those of the run's clips, or 8 of a run of single images."""
    fps: Rate = 4.0
    """Frames per second that are read and written; training must have had the same."""
    repeat_last: bool = False
    """Whether the last frame of a video that is too short is repeated."""

    def __call__(self) -> int:
        from filmstrip.commands.work.edit import edit

        return edit(self)
