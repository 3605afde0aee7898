"""Similarities of edited videos to their sources and their texts, by a model of video and text (MoCA, appendix F).

``M_sim`` is the cosine of the vectors of edit and source, ``M_dir`` that of two differences: of the videos, and of
their texts; ``M_geo`` is the geometric mean of both. Where edit and source, or both texts, are the same, ``M_dir``
has no value and counts as 0; factors below 0 count as 0 in ``M_geo``, whose square root has no value there. How often
that happens is told beside them. A copy of the source has the best ``M_sim`` there is: none says much alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.data.texts import tokenised
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import as_float
from filmstrip.runs.contents import is_run
from filmstrip.runs.text_video import TextVideoModel, load_text_video

_SAME = 1e-5
"""Distance of two vectors of length one up to which they are the same."""


def similarities(source: Tensor, edited: Tensor, source_text: Tensor, text: Tensor) -> dict[str, Tensor]:
    """``m_sim``, ``m_dir`` and ``m_geo`` of videos and texts by their vectors of length one, ``... D``, and whether
    ``m_dir`` is undefined and ``m_geo`` has a factor below 0: all ``...`` float32. Texts are broadcast to videos."""
    moved, asked = edited - source, text - source_text
    defined = (moved.norm(dim=-1) > _SAME) & (asked.norm(dim=-1) > _SAME)
    m_sim = F.cosine_similarity(source, edited, dim=-1)
    m_dir = F.cosine_similarity(moved, asked.expand_as(moved), dim=-1).where(defined, torch.zeros_like(m_sim))
    return {
        "m_sim": m_sim,
        "m_dir": m_dir,
        "m_geo": (m_sim.clamp(min=0) * m_dir.clamp(min=0)).sqrt(),
        "m_dir_undefined": (~defined).float(),
        "m_geo_clamped": ((m_sim < 0) | (m_dir < 0)).float(),
    }


class EditSimilarity:
    """The similarities by one model: of whole clips, or of single frames, averaged, where the model reads images."""

    def __init__(self, read: TextVideoModel, name: str, *, of_frames: bool) -> None:
        """``name`` says which model it is; ``of_frames`` that frames are compared one by one."""
        self.read, self.name, self.of_frames = read, name, of_frames

    @property
    def described(self) -> str:
        """The model in words."""
        frames = "single frames, averaged" if self.of_frames else f"clips of {self.read.clip.num_frames} frames"
        return f"{self.name} ({type(self.read.objective).__name__}, {frames})"

    def __call__(
        self, sources: Tensor, edited: Tensor, source_texts: Sequence[str], texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """:func:`similarities` of videos ``B T 3 H W``, uint8 or in 0..1, and their texts: ``B`` each, on the CPU. Of
        single frames what is undefined or below 0 is a share."""
        with inference(self.read.objective):
            vectors = [self._videos(sources), self._videos(edited), self._texts(source_texts), self._texts(texts)]
        source, edit, source_text, text = vectors
        found = similarities(source, edit, source_text[:, None], text[:, None])
        return {name: values.mean(dim=1) for name, values in found.items()}

    def _videos(self, videos: Tensor) -> Tensor:
        """Vectors ``B T D`` of frames, or ``B 1 D`` of clips."""
        clip, count = self.read.clip, videos.shape[1]
        if not self.of_frames:
            videos = videos[:, torch.linspace(0, count - 1, clip.num_frames).round().long()]
        flat = as_float(videos).flatten(0, 1)
        if flat.shape[-2:] != (clip.size, clip.size):
            flat = F.interpolate(flat, (clip.size, clip.size), mode="bilinear", antialias=True).clamp(0, 1)
        shaped = flat[:, None] if self.of_frames else flat.unflatten(0, (len(videos), -1))
        found = self.read.model.encode_video(shaped.to(device_of(self.read.objective))).float().cpu()
        if found.ndim != 2:
            raise UserError(f"{self.name} encodes several vectors of a video, whose differences have no direction")
        return F.normalize(found.unflatten(0, (len(videos), -1)), dim=-1)

    def _texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``B D`` of texts."""
        reads, device = self.read.reads, device_of(self.read.objective)
        ids, lengths = tokenised(self.read.tokenizer, texts, reads.max_length, start=reads.start)
        return F.normalize(self.read.model.encode_text(ids.to(device), lengths.to(device)).float().cpu(), dim=-1)


def edit_similarity(source: str, device: torch.device | str | None = None) -> EditSimilarity:
    """The similarities by a run folder, or by a SigLIP or CLIP in the Hub's layout, which read single frames.

    Raises:
        UserError: there is no such model, or it encodes no text.
    """
    read = load_text_video(source, device)
    if read is None:
        raise UserError(f"{source} compares no video with text: give a run folder, or a folder of SigLIP or CLIP")
    of_run = is_run(source)
    name = Path(source).resolve().name if of_run or not source.startswith("hf:") else source.removeprefix("hf:")
    return EditSimilarity(read, name, of_frames=not of_run or read.clip.num_frames == 1)
