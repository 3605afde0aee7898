"""What InternVideo2's student sees, and which teachers it can have."""

import dataclasses

import pytest
import torch

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.objectives.teachers import ImageTransformerConfig
from filmstrip.systems.pretraining.internvideo2 import choose_by_weight, look

CONFIG = systems.find("pretraining.internvideo2:tiny").objective
IMAGE = ImageTransformerConfig(width=40, depth=3, num_heads=2, num_frames=1, size=64, patch_size=8)


def batch(size=2):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (size, 8, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.arange(size)}


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changes).build()


def test_positions_are_drawn_in_proportion_to_their_weights():
    weights = torch.tensor([0.5, 0.25, 0.15, 0.1]).expand(20_000, 1, 4)
    first = choose_by_weight(torch.arange(20_000), weights, 1)[:, 0]
    share = torch.bincount(first, minlength=4) / 20_000
    assert (share - weights[0, 0]).abs().max() < 0.015
    both = choose_by_weight(torch.arange(20_000), weights, 2)
    # The second is drawn in proportion among those that are left.
    expected = sum(0.5 * w / 0.5 if i == 0 else w * 0.5 / (1 - w) for i, w in enumerate(weights[0, 0].tolist()))
    assert (both == 0).any(dim=1).float().mean().item() == pytest.approx(expected, abs=0.015)


def test_every_frame_keeps_as_many_and_a_clip_keeps_its_own():
    weights = torch.rand(3, 4, 16, generator=torch.Generator().manual_seed(0)) + 1e-3
    kept = choose_by_weight(torch.tensor([4, 5, 6]), weights, 3)
    assert torch.equal(kept, kept.sort(dim=1).values)
    assert (torch.nn.functional.one_hot(kept // 16, 4).sum(dim=1) == 3).all()
    assert torch.equal(kept[1:2], choose_by_weight(torch.tensor([5]), weights[1:2], 3))


def test_the_student_sees_a_fifth_of_each_frame_and_the_class_token():
    objective, lengths = built(), []
    objective.encoder.blocks[0].register_forward_hook(lambda module, x, out: lengths.append(out.shape[1]))
    loss = objective(batch())
    assert lengths == [1 + 4 * (64 - int(64 * 0.8))]
    assert 0 < loss.metrics["loss_image"] < 4 and set(loss.metrics) == {"loss_image", "loss_pooled", "loss_video"}


def test_salient_positions_are_seen_more_often():
    objective = built()
    saliency = torch.full((64, 4, 64), 1e-4)
    saliency[:, :, :8] = 0.1
    kept = objective.kept(torch.arange(64), saliency) % 64
    assert ((kept < 8).float().sum(dim=1) > 4 * 6).all()
    evenly = built(keep="random").kept(torch.arange(64), saliency) % 64
    assert (evenly < 8).float().mean().item() == pytest.approx(8 / 64, abs=0.03)


def test_an_image_transformer_looks_by_its_class_token():
    objective = built(image_teacher=IMAGE, image_layers=2)
    looked = look(objective.image_teacher, batch()["video"], 2)
    assert looked.saliency.shape == (2, 4, 64) and (looked.saliency > 0).all()
    assert (looked.saliency.sum(dim=-1) < 1).all()
    assert [tuple(layer.shape) for layer in looked.layers] == [(2, 257, 40)] * 2 and looked.pooled.shape == (2, 40)
    encoder, frames = objective.image_teacher.encoder, batch()["video"][:, ::2]
    _, seen = encoder.steps(frames, layers=True)
    block, inputs = encoder.blocks[-1], seen[-2]
    q, k, _ = block.attention._project(block.norm1(inputs), None)
    expected = torch.nn.functional.scaled_dot_product_attention(q[:, :, :1], k, torch.eye(65).expand(8, 2, 65, 65))
    torch.testing.assert_close(looked.saliency.flatten(0, 1), expected.mean(dim=1)[:, 0, 1:])
    assert objective(batch()).total.isfinite()


def test_teachers_are_the_same_after_training():
    objective = built()
    before = {name: value.clone() for name, value in objective.state_dict().items() if "_teacher." in name}
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        objective(batch()).total.backward()
        optimiser.step()
    after = objective.state_dict()
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"image_layers": 3}, "image_layers is 3, and student and teacher have 2"),
        ({"video_layers": 3}, "video_layers is 3, and student and teacher have 2"),
        ({"image_teacher": dataclasses.replace(CONFIG.image_teacher, size=32)}, "image_teacher: the teacher"),
        (
            {"image_teacher": dataclasses.replace(CONFIG.video_teacher, num_frames=4, patch_size=(1, 8, 8))},
            "a ViT does not say what it attends to",
        ),
    ],
)
def test_teachers_that_do_not_fit_are_refused_when_it_is_built(changes, said):
    with pytest.raises(UserError, match=said):
        built(**changes)
