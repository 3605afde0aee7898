"""Editing one video, written to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.commands.edit import Edit
from filmstrip.data.edits import FRAMES, edit_type
from filmstrip.errors import UserError
from filmstrip.evals.edit_similarity import EditSimilarity, edit_similarity
from filmstrip.progress import counted
from filmstrip.runs.editors import TrainedEditor, load_editor
from filmstrip.systems import find
from filmstrip.video import write_grid, write_video
from filmstrip.video.decoder import DecodeError

_FACTORS = ((1.0, 1.0), (1.5, 1.0), (1.0, 1.5), (1.5, 1.5))
"""Factors of the scales of text and motion, of one candidate after another."""
_MEASURES = {"m_geo": "M_geo", "m_dir": "M_dir", "m_sim": "M_sim"}


def edit(command: Edit) -> int:
    """Edit a video and write what it became; returns 0.

    Raises:
        UserError: the type of edit is unknown, a file cannot be read or written, or the run edits no videos.
    """
    kind = edit_type(command.type)
    if command.out.suffix.lower() not in (".mp4", ".gif", ".webp"):
        raise UserError(f"cannot write {command.out}: name it .mp4, .gif or .webp")
    by = None if command.by is None else find(command.by).objective
    editor = load_editor(command.run, by=by, num_frames=command.frames)
    _check_source(command, editor, kind)
    depth = None
    judge = None if command.clip is None else edit_similarity(command.clip)
    try:
        video = editor.clip(command.video, fps=command.fps, repeat_last=command.repeat_last)
        frame = None if command.frame is None else editor.frame(command.frame)
        if editor.method.reads_depth:
            depth = editor.depth(command.video, command.depth, fps=command.fps, repeat_last=command.repeat_last)
    except DecodeError as error:
        raise UserError(str(error)) from None
    options = _options(command, editor)
    if frame is None and (command.editor is not None or command.first_frame is not None):
        frame = _edited_frame(command, editor, video, kind, options)
    if frame is not None and command.first_frame is not None:
        write_grid(command.first_frame, [frame[None]], gap=0)
    written: list[tuple[Path, Tensor]] = []
    with counted("editing", command.candidates) as done:
        for number in range(command.candidates):
            request = editor.request(
                video[None],
                [command.source],
                [command.to],
                kind,
                seeds=[command.seed + number],
                frames=None if frame is None else frame[None],
                depth=None if depth is None else depth[None],
                guidance=_scales(command, editor, number),
                **options,
            )
            out = command.out
            if command.candidates > 1:
                out = out.with_name(f"{out.stem}_{number + 1}{out.suffix}")
            written.append((out, editor.edit(request)[0]))
            write_video(*written[-1], command.fps)
            done(number + 1)
            print(f"{out}: {len(video)} frames, {_said(request.keeps_motion, request.guidance)}")
    if judge is not None:
        _print_scores(judge, command, video, written)
    return 0


def _print_scores(judge: EditSimilarity, command: Edit, video: Tensor, written: list[tuple[Path, Tensor]]) -> None:
    """Print how near the candidates are to source and text, the best first."""
    count = len(written)
    sources, edits = video[None].expand(count, *video.shape), torch.stack([edit for _, edit in written])
    found = judge(sources, edits, [command.source] * count, [command.to] * count)
    print(f"by {judge.described}, best first:")
    # Where M_geo is 0 or has no value, the direction still tells candidates apart.
    order = sorted(range(count), key=lambda i: (found["m_geo"][i].item(), found["m_dir"][i].item()), reverse=True)
    for i in order:
        told = ", ".join(f"{said} {found[name][i].item():.3f}" for name, said in _MEASURES.items())
        why = ""
        if share := found["m_dir_undefined"][i].item():
            why = f" (M_dir has no value in {share:.0%} of it: as the source)"
        elif share := found["m_geo_clamped"][i].item():
            why = f" (a factor below 0 in {share:.0%} of it)"
        print(f"{written[i][0]}: {told}{why}")


def _check_source(command: Edit, editor: TrainedEditor, kind: str) -> None:
    """See that the source's words are there where they are needed, and depth is only given where it is."""
    if command.depth is not None and not editor.method.reads_depth:
        raise UserError(
            f"a {type(editor.objective).__name__} reads no depth: leave out --depth, or edit with a run of "
            "editing.depth_control"
        )
    if command.source:
        return
    if command.clip is not None:
        raise UserError(
            '--clip compares what changed with the change of the text: say what the video shows (--from "...")'
        )
    if editor.method.reads_source_text:
        raise UserError(f'a {type(editor.objective).__name__} edits a video by what it shows: say so (--from "...")')
    edits_frame = editor.method.edits_first_frame or command.editor is not None or command.first_frame is not None
    if edits_frame and command.frame is None and FRAMES[kind] == "prompt_to_prompt":
        raise UserError(
            f"an edit of type {kind} edits the first frame by exchanging words: say what the video shows (--from "
            '"..."), or give the edited frame (--frame IMAGE)'
        )


def _options(command: Edit, editor: TrainedEditor) -> dict[str, Any]:
    """Settings of sampling, of editing the frame and of training on the video."""
    own = editor.config.sampling
    sampling = own if command.steps is None else replace(own, steps=command.steps)
    options = {"sampling": sampling, "frame_editing": command.frame_editing}
    given = {name: value for name, value in vars(command.tuning).items() if value is not None}
    tuning = getattr(editor.config, "tuning", None)
    if given and tuning is None:
        raise UserError(
            f"a {type(editor.objective).__name__} is not trained on the video: leave out --tuning, or edit --by "
            "editing.tune_a_video or editing.dreamix"
        )
    if tuning is not None:
        options["tuning"] = tuning = replace(tuning, **given)
        print(f"training on {command.video} first: {tuning.steps} steps")
    return options


def _scales(command: Edit, editor: TrainedEditor, number: int) -> dict[str, float]:
    """The scales of one candidate."""
    own = vars(editor.config.guidance)
    given = {name: value for name, value in vars(command.guidance).items() if value is not None}
    if unknown := sorted(given.keys() - own.keys()):
        raise UserError(f"{command.run} has no condition {', '.join(unknown)} to guide by; it has {', '.join(own)}")
    scales = own | given
    text, motion = _FACTORS[number % len(_FACTORS)]
    return {name: value * {"text": text, "motion": motion}.get(name, 1.0) for name, value in scales.items()}


def _edited_frame(command: Edit, editor: TrainedEditor, video: Tensor, kind: str, options: dict[str, Any]) -> Tensor:
    """The first frame ``3 H W`` as the run, or the one that edits frames, makes it."""
    by = editor if command.editor is None else load_editor(Path(command.editor))
    first = video[:1] if by is editor else by.clip(command.video, fps=command.fps, repeat_last=True)[:1]
    request = by.request(first[None], [command.source], [command.to], kind, seeds=[command.seed], **options)
    frame = by.edit_frames(request)[0]
    size = editor.size
    if frame.shape[-1] != size:
        frame = torch.nn.functional.interpolate(frame[None], (size, size), mode="bilinear", antialias=True)[0]
    return frame


def _said(keeps_motion: bool, scales: Any) -> str:
    motion = "moving as the source" if keeps_motion else "moving as the text says"
    return f"{motion}; guidance {', '.join(f'{name} {value:g}' for name, value in scales.items())}"
