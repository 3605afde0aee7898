"""MVD's teachers stay what they are, and its other settings do what they say."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.data.config import Clip
from filmstrip.errors import UserError

CONFIG = dataclasses.replace(systems.find("pretraining.mvd:tiny").objective, width=48, depth=2, decoder_depth=1)


def batch():
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (2, 8, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.arange(2)}


def steps(objective, count=3):
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    objective.train()
    for step in range(count):
        optimiser.zero_grad()
        objective(batch()).total.backward()
        optimiser.step()
        objective.after_step(step + 1)


def teachers_of(objective):
    return {name: value.clone() for name, value in objective.state_dict().items() if "_teacher." in name}


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changes).build()


def test_teachers_are_the_same_after_training():
    objective = built(drop_path=0.5)
    before = teachers_of(objective)
    steps(objective)
    after = teachers_of(objective)
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(m.training for name, m in objective.named_modules() if "_teacher.encoder" in name)


def test_the_loss_is_the_mean_over_masked_tubelets_of_both():
    objective, given = built(image_weight=0.5).eval(), batch()
    visible, masked = objective.masks(given["seed"])
    said = objective.predict_masked(given["video"], visible, masked)
    image, video = said.split([48, 72], dim=-1)
    errors = [
        F.smooth_l1_loss(image, objective.image_teacher(given["video"], masked)),
        F.smooth_l1_loss(video, objective.video_teacher(given["video"], masked)),
    ]
    loss = objective(given)
    torch.testing.assert_close(loss.total, 0.5 * errors[0] + errors[1])
    torch.testing.assert_close(loss.metrics["loss_video"], errors[1].detach())


def test_a_perfect_prediction_costs_nothing():
    objective, given = built(), batch()
    for prediction in objective.predictions:
        prediction.decoder.forward = lambda encoded, visible, wanted, p=prediction: p.target(given["video"], wanted)
    assert objective(given).total == 0


@pytest.mark.parametrize(
    "teachers, names", [("image", ["image"]), ("video", ["video"]), ("both", ["image", "video"])]
)
def test_teachers_that_are_not_used_are_not_there(teachers, names):
    objective = built(teachers=teachers, regress_pixels=True)
    assert [prediction.name for prediction in objective.predictions] == [*names, "pixels"]
    assert hasattr(objective, "video_teacher") == ("video" in names)
    assert objective(batch()).total.isfinite()


def test_token_by_token_the_student_sees_everything_and_has_no_decoder():
    objective, given = built(teaching="per_token"), batch()
    visible, wanted = objective.masks(given["seed"])
    assert torch.equal(visible, wanted) and visible.shape == (2, 256)
    assert not hasattr(objective.image_decoder, "blocks")
    steps(objective)


def test_the_students_average_teaches_it():
    objective = built(teachers="video", momentum=0.5)
    steps(objective, 1)
    own, theirs = dict(objective.encoder.named_parameters()), dict(objective.video_teacher.encoder.named_parameters())
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    before = {name: value.clone() for name, value in theirs.items()}
    objective.zero_grad()
    objective(batch()).total.backward()
    torch.optim.SGD(objective.encoder.parameters(), lr=0.1).step()
    objective.after_step(2)
    for name, value in theirs.items():
        torch.testing.assert_close(value, (before[name] + own[name]) / 2)
    assert objective.video_teacher.width == CONFIG.width


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"momentum": 0.9}, "teachers is 'both': set it to 'video'"),
        ({"teaching": "per_token", "regress_pixels": True}, "pixels that are seen"),
        ({"video_teacher": dataclasses.replace(CONFIG.video_teacher, num_frames=4)}, "video_teacher: the teacher"),
        (
            {"image_teacher": dataclasses.replace(CONFIG.image_teacher, size=32)},
            r"image_teacher: .*built for a grid of \(1, 4, 4\)",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_built(changes, said):
    with pytest.raises(UserError, match=said):
        built(**changes)


def test_teachers_follow_the_clip():
    config = CONFIG.for_clip(Clip(num_frames=4, size=32))
    assert (config.image_teacher.size, config.video_teacher.num_frames) == (32, 4)
    assert config.build().encoder.grid == (2, 4, 4)
