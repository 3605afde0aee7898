"""Prediction of frames: what is seen and what is predicted, and what cannot be built."""

from dataclasses import replace

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.systems.pretraining import future_frames

CONFIG = future_frames.tiny().objective


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return CONFIG.build()


def clips(count=2, frames=12, size=32):
    return torch.randint(0, 256, (count, frames, 3, size, size), dtype=torch.uint8)


def test_predictions_do_not_see_what_they_predict(objective):
    video = clips()
    objective.eval()
    predicted = objective.predict(video[:, :8])
    assert predicted.shape == (2, 4, 3, 32, 32)
    other = torch.cat([video[:, :8], clips()[:, 8:]], dim=1)
    with torch.no_grad():
        losses = [objective({"video": one}).total for one in (video, other)]
        expected = [(predicted - one[:, 8:] / 255).square().mean() for one in (video, other)]
    torch.testing.assert_close(losses, expected)


def test_a_network_that_paints_nothing_repeats_the_last_frame(objective):
    torch.nn.init.zeros_(objective.decoder.paint.weight)
    torch.nn.init.zeros_(objective.decoder.paint.bias)
    video = clips()
    assert torch.equal(objective.predict(video[:, :8]), (video[:, 7:8] / 255).expand(-1, 4, -1, -1, -1))
    assert objective({"video": video}).metrics["over_last_frame"].item() == pytest.approx(1)


def test_each_position_paints_its_own_square(objective):
    """Features of one position change the picture around it alone: as far as two convolutions reach."""
    tokens = torch.zeros(1, CONFIG.grid.t * 16, 64)
    other = tokens.clone()
    other.unflatten(1, (CONFIG.grid.t, 4, 4))[:, :, 0, 0] = 1  # top left
    changed = (objective.decoder(other) != objective.decoder(tokens)).any(dim=2)[0, 0]
    assert changed[:8, :8].any() and not changed[24:].any() and not changed[:, 24:].any()


@pytest.mark.parametrize("video", [clips(frames=7), clips(frames=8, size=64)])
def test_other_clips_are_refused_by_the_decoder_and_encoded_all_the_same(objective, video):
    with pytest.raises(ValueError, match="expected 8 frames of 32 x 32 pixels"):
        objective.predict(video)
    assert objective.encoder(video).tokens.shape[0] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_predicted": 12}, "num_predicted 12 leaves no frame of a clip of 12"),
        ({"size": 36}, "size 36 is no multiple of 8, .* as of 40 pixels"),
    ],
)
def test_what_cannot_be_built_says_why(wrong, message):
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **wrong).build()


def test_odd_numbers_of_frames_and_rows_of_a_grid():
    config = replace(CONFIG, num_frames=9, num_predicted=2, size=40)
    objective = config.build()
    assert objective.encoder(clips(frames=7, size=40)).grid == config.grid
    assert objective.predict(clips(frames=7, size=40)).shape == (2, 2, 3, 40, 40)
