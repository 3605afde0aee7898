"""Two frozen encoders, coordinated: what begins as the identity, what learns, what does not, and what is refused."""

import dataclasses

import pytest
import torch

from filmstrip import systems
from filmstrip.errors import UserError

CONFIG = systems.find("recognition.internvideo:tiny").objective


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changes).build()


def batch(size=4):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (size, 8, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"video": video, "label": torch.arange(size)}


@torch.no_grad()
def test_at_first_nothing_is_changed():
    encoder, video = built().encoder, batch(2)["video"]
    said = encoder(video, layers=True)
    masked, language = encoder.masked(video, layers=True), encoder.language(video[:, ::2])
    assert torch.equal(said.tokens, masked.tokens)
    assert torch.equal(said.summary, language.summary)
    assert all(torch.equal(x, y) for x, y in zip(said.layers, masked.layers, strict=True))
    assert said.grid == masked.grid


def test_gradients_go_through_frozen_blocks_which_stay_as_they_are():
    objective = built().train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        objective(batch()).total.backward()
        optimiser.step()
    frozen = ("encoder.masked.", "encoder.language.")
    moved = {name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith(frozen)]
    assert {name for name in before if not name.startswith(frozen)} == moved
    assert all(p.grad is None for n, p in objective.named_parameters() if n.startswith(frozen))
    assert not objective.encoder.language.training and not objective.encoder.masked.training
    # The final query's values come from tokens that the attention between the encoders has changed by now.
    encoder, video = objective.encoder, batch(2)["video"]
    assert not torch.allclose(encoder(video).tokens, encoder.masked(video).tokens)


@torch.no_grad()
def test_late_concatenation_has_both_vectors_side_by_side():
    objective = built(final="concatenation", after_blocks=())
    encoder, video = objective.encoder, batch(2)["video"]
    vector = encoder(video).pooled()
    token, mean = encoder.language(video[:, ::2]).pooled(), encoder.masked(video).tokens.mean(dim=1)
    parts = [torch.nn.functional.layer_norm(x, x.shape[-1:]) for x in (token, mean)]
    assert torch.allclose(vector, torch.cat(parts, dim=-1), atol=1e-6)
    assert objective.head.in_features == vector.shape[1]


def test_other_clips_take_both_encoders_along():
    network = dataclasses.replace(CONFIG, num_classes=3)
    clip = dataclasses.replace(systems.find("recognition.internvideo:tiny").data.clip, num_frames=4, size=32)
    resized = network.for_clip(clip)
    assert (resized.masked.num_frames, resized.masked.size, resized.language.size) == (4, 32, 32)
    assert resized.build().classify(torch.zeros(1, 4, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"after_blocks": (2, 9)}, "after_blocks names block 9, and the masked encoder has 4"),
        ({"masked": CONFIG.language}, "between blocks of a ViT, not in UniFormerV2"),
        ({"num_frames": 16}, "the masked encoder does not fit the clips: this network was built for"),
        ({"language": systems.find("tokenizers.dvae:tiny").objective}, "language: DVAEConfig has no encoder"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        built(**changes)
