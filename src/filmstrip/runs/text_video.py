"""Models that compare video with text, from a run folder or in the Hub's layout, and how they read both."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch

from filmstrip.data.config import Clip
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.protocols import DualEncoder, Objective
from filmstrip.runs.contents import is_run
from filmstrip.runs.hub_towers import load_hub_towers
from filmstrip.runs.loading import default_device, load_objective
from filmstrip.text.tokenizers import TextTokenizer


class TextVideoModel(NamedTuple):
    """A model of video and text, and how it reads both."""

    objective: Objective
    clip: Clip
    reads: Captioned
    tokenizer: TextTokenizer

    @property
    def model(self) -> DualEncoder:
        """The same as what encodes."""
        return cast(DualEncoder, self.objective)


def load_text_video(source: str, device: torch.device | str | None = None) -> TextVideoModel | None:
    """A model of video and text from a run folder, or a SigLIP or CLIP from the Hub or its layout; none of others.

    Raises:
        UserError: a run encodes no text, or there is no such source.
    """
    if is_run(source):
        objective, run = load_objective(source, device)
        if not isinstance(objective, DualEncoder) or not isinstance(run.data.reads, Captioned):
            raise UserError(
                f"{source} holds a {type(objective).__name__}, which encodes no text: give a run of SigLIP or CLIP"
            )
        return as_text_video(objective, run.data.clip, run.data.reads.as_recorded(Path(source)))
    if (loaded := load_hub_towers(source)) is None:
        return None
    towers, data = loaded
    return as_text_video(towers.to(default_device(device)), data.clip, cast(Captioned, data.reads))


def as_text_video(objective: Objective, clip: Clip, reads: Captioned) -> TextVideoModel:
    """A model with the tokenizer of its captions, which is fitted already."""
    return TextVideoModel(objective, clip, reads, reads.tokenizer.fit((), ()))
