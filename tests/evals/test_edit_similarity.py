"""Similarities of edits by a model of video and text: formulas, what has no value, how clips and frames are read."""

import math

import pytest
import torch
import torch.nn.functional as F

from filmstrip.data.config import Clip
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.evals.edit_similarity import EditSimilarity, edit_similarity, similarities
from filmstrip.protocols import Objective
from filmstrip.runs.text_video import TextVideoModel
from filmstrip.text.tokenizers import Words

WORDS = Words().fit(["a red disc", "a blue disc"], ())


def unit(*values):
    return F.normalize(torch.tensor([values], dtype=torch.float32), dim=-1)


def test_formulas():
    source, edit, before, after = unit(1, 0, 0), unit(1, 1, 0), unit(0, 0, 1), unit(0, 1, 1)
    found = similarities(source, edit, before, after)
    moved, asked = edit - source, after - before
    m_dir = (moved @ asked.T / moved.norm() / asked.norm()).item()
    assert found["m_sim"].item() == pytest.approx(math.sqrt(0.5))
    assert found["m_dir"].item() == pytest.approx(m_dir) and m_dir > 0
    assert found["m_geo"].item() == pytest.approx(math.sqrt(math.sqrt(0.5) * m_dir))
    assert found["m_dir_undefined"].item() == found["m_geo_clamped"].item() == 0


@pytest.mark.parametrize(
    ("edit", "after", "undefined", "clamped", "m_dir"),
    [
        (unit(1, 0, 0), unit(0, 1, 1), 1, 0, 0),  # the source again
        (unit(1, 1, 0), unit(0, 0, 1), 1, 0, 0),  # the same text
        (unit(1, -1, 0), unit(0, 1, 1), 0, 1, None),  # away from the text
        (unit(-1, -0.1, 0), unit(0.1, 1, 1), 0, 1, None),  # two factors below 0, whose product is not
    ],
)
def test_what_has_no_value_is_zero_and_told(edit, after, undefined, clamped, m_dir):
    found = similarities(unit(1, 0, 0), edit, unit(0, 0, 1), after)
    assert all(value.isfinite().all() for value in found.values())
    assert found["m_geo"].item() == 0
    assert (found["m_dir_undefined"].item(), found["m_geo_clamped"].item()) == (undefined, clamped)
    assert found["m_dir"].item() == 0 if m_dir == 0 else found["m_dir"].item() < 0


class Colours(Objective):
    """Vectors of a video are its mean colours over the clip; those of a text stand for red and blue."""

    requires = ()

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shapes = []

    def encode_video(self, video, *native):
        self.shapes.append(tuple(video.shape))
        return F.normalize(video.mean(dim=(1, 3, 4)) + 0.01, dim=-1)

    def encode_text(self, ids, lengths):
        red = (ids == WORDS.encode("red")[0]).any(dim=1)
        return torch.where(red[:, None], torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0]))

    def similarity(self, video, text):
        return video @ text.T


def model(num_frames, *, of_frames):
    read = TextVideoModel(Colours(), Clip(num_frames=num_frames, size=8), Captioned(max_length=6), WORDS)
    return EditSimilarity(read, "colours", of_frames=of_frames)


def painted(colour, frames=8):
    return torch.tensor(colour, dtype=torch.float32)[None, :, None, None].expand(frames, 3, 16, 16)


TEXTS = ["a red disc"], ["a blue disc"]


def test_clips_and_frames():
    source = painted([1, 0, 0])[None]
    half = torch.cat([painted([1, 0, 0], 4), painted([0, 0, 1], 4)])[None]
    clips, frames = model(4, of_frames=False), model(1, of_frames=True)
    whole, single = clips(source, half, *TEXTS), frames(source, half, *TEXTS)
    assert clips.read.objective.shapes == [(1, 4, 3, 8, 8)] * 2
    assert frames.read.objective.shapes == [(8, 1, 3, 8, 8)] * 2
    assert whole["m_dir"].item() > 0.5 and whole["m_dir_undefined"].item() == 0
    # Of frames, half are the source's, which have no direction and count as 0; the others have all of it.
    assert single["m_dir"].item() == pytest.approx(0.5, abs=0.01)
    assert single["m_dir_undefined"].item() == 0.5
    assert frames.described == "colours (Colours, single frames, averaged)"
    assert "clips of 4 frames" in clips.described


def test_nothing_depends_on_the_batch_nor_on_levels():
    torch.manual_seed(0)
    similarity = model(4, of_frames=False)
    sources, edits = torch.rand(3, 8, 3, 16, 16), torch.rand(3, 8, 3, 16, 16)
    texts = [["a red disc"] * 3, ["a blue disc"] * 3]
    whole = similarity(sources, edits, *texts)
    alone = similarity(sources[1:2], edits[1:2], *TEXTS)
    levels = similarity((255 * sources).round().byte(), (255 * edits).round().byte(), *texts)
    for name, values in alone.items():
        assert values.item() == pytest.approx(whole[name][1].item(), abs=1e-6)
        assert torch.allclose(levels[name], whole[name], atol=0.02)


def test_what_is_no_such_model_is_said(tmp_path):
    with pytest.raises(UserError):
        edit_similarity(str(tmp_path))
