"""InternVideo2's third stage: what the language model sees of a clip, whole or in crops, and what learns."""

import dataclasses

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.objectives.language import Adaptation
from filmstrip.systems.language.internvideo2_chat import ATTENTION

RUN = systems.find("language.internvideo2_chat")
RUN = RUN.bound(info_for(RUN.data.reads))


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(RUN.objective, **changes).build()


@torch.no_grad()
def test_crops_are_read_row_by_row_and_then_the_whole_made_small():
    objective = built().eval()
    video = draw_batch(RUN.data, size=2, seed=0)["video"]
    seen = objective.see(video)
    assert seen.shape == (2, 5 * 2, 64)
    plain = built(crops=1).eval()
    plain.load_state_dict(objective.state_dict())
    for i, (top, left) in enumerate(((0, 0), (0, 16), (16, 0), (16, 16))):
        crop = video[..., top : top + 16, left : left + 16]
        torch.testing.assert_close(seen[:, 2 * i : 2 * i + 2], plain.see(crop))
    changed = video.clone()
    changed[..., 20:, :10] = 255 - changed[..., 20:, :10]
    same = (objective.see(changed) == seen).flatten(2).all(dim=2).all(dim=0)
    assert same.tolist() == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 2


def test_queries_and_the_adaptation_learn_and_nothing_else():
    adaptation = Adaptation(rank=2, layers=ATTENTION)
    objective = built(trains=("connector",), adaptation=adaptation).train()
    assert not objective.encoder.training and objective.connector.training
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    for seed in range(2):
        optimiser.zero_grad()
        objective(draw_batch(RUN.data, size=2, seed=seed)).total.backward()
        optimiser.step()
    changed = {name for name, tensor in objective.state_dict().items() if not torch.equal(tensor, before[name])}
    own = ("connector.", "decoder.blocks.")
    assert changed and all(name.startswith(own) for name in changed)
    adapted = {name for name in changed if name.startswith("decoder.")}
    trained = {name for name, p in objective.named_parameters() if p.requires_grad and name.startswith("decoder.")}
    assert adapted == trained and all(".attention." in name for name in adapted)


def test_clips_that_cannot_be_cut_are_refused():
    clip = dataclasses.replace(RUN.data.clip, size=33)
    with pytest.raises(UserError, match=r"clips of 33 pixels cannot be cut into 2 x 2 crops"):
        RUN.objective.for_clip(clip)
    assert RUN.objective.for_clip(RUN.data.clip).encoder.size == 16
