"""``language.siglip2`` with the weights of ``transformers``' NaFlex model: several sizes in one batch, and back."""

import pytest
import torch
from transformers import Siglip2Config, Siglip2Model

from filmstrip.models.dual_encoder import SIGLIP_PIXELS
from filmstrip.nn.patches import NativeFrames
from filmstrip.objectives.contrastive import contrastive_in_hub
from filmstrip.weights.released import copy_published, to_published

PATCH, BASE = 4, 25
TEXT = {
    "vocab_size": 50,
    "hidden_size": 18,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 8,
    "projection_size": 24,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": PATCH,
    "num_patches": BASE,
}
GRIDS = torch.tensor([[3, 4], [5, 5], [9, 2], [1, 7]])
"""Rows and columns of patches of the frames of a batch: shrunken and enlarged positions, and their own."""


@pytest.fixture(scope="module")
def both():
    """Their model, and ours with its weights."""
    torch.manual_seed(0)
    theirs = Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=VISION)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter += 0.2 * torch.randn_like(parameter) if "logit" not in name else 1.0
    ours = contrastive_in_hub(theirs.config.to_dict(), SIGLIP_PIXELS, "it")
    copy_published(theirs.state_dict(), ours, "it")
    return theirs, ours.eval()


@pytest.fixture(scope="module")
def given():
    """Frames of several sizes at the top left of one, with noise in the padding; and their model's input."""
    generator = torch.Generator().manual_seed(1)
    high, wide = (int(n) * PATCH for n in GRIDS.amax(dim=0))
    video = torch.rand(len(GRIDS), 1, 3, high, wide, generator=generator)
    room = int(GRIDS.prod(dim=1).max()) + 2
    frames = NativeFrames(GRIDS * PATCH, torch.arange(room) < GRIDS.prod(dim=1, keepdim=True))
    patches = torch.zeros(len(GRIDS), room, PATCH * PATCH * 3)
    for row, frame, (h, w) in zip(patches, video[:, 0], GRIDS.tolist()):
        own = (frame[:, : h * PATCH, : w * PATCH] - 0.5) / 0.5
        row[: h * w] = own.view(3, h, PATCH, w, PATCH).permute(1, 3, 2, 4, 0).reshape(h * w, -1)
    return video, frames, patches


def test_frames_of_several_sizes_are_read_as_theirs(both, given):
    (theirs, ours), (video, frames, patches) = both, given
    with torch.no_grad():
        vision = theirs.vision_model(
            pixel_values=patches, pixel_attention_mask=frames.is_patch.long(), spatial_shapes=GRIDS
        )
        features = ours.encoder.native(video, frames)
        for i, valid in enumerate(frames.is_patch):
            torch.testing.assert_close(
                features.tokens[i, 0][valid], vision.last_hidden_state[i][valid], rtol=1e-4, atol=1e-5
            )
        torch.testing.assert_close(features.summary[:, 0], vision.pooler_output, rtol=1e-4, atol=1e-5)


def test_logits_and_loss_are_theirs(both, given):
    (theirs, ours), (video, frames, patches) = both, given
    ids = torch.randint(0, 50, (len(GRIDS), 8), generator=torch.Generator().manual_seed(2))
    batch = {"video": video, "text": ids, "text_length": torch.full((len(GRIDS),), 8), "index": torch.arange(4)}
    with torch.no_grad():
        expected = theirs(
            input_ids=ids,
            pixel_values=patches,
            pixel_attention_mask=frames.is_patch.long(),
            spatial_shapes=GRIDS,
            return_loss=True,
        )
        text = ours.encode_text(ids, batch["text_length"])
        logits = ours.similarity(ours.encode_video(video, frames), text)
        torch.testing.assert_close(logits, expected.logits_per_image, rtol=1e-4, atol=1e-4)
        loss = ours(batch | {"frame_size": frames.size, "is_patch": frames.is_patch}).total
        torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_size_needs_no_sizes(both, given):
    (_, ours), (video, _, _) = both, given
    frame = video[:, :, :, :12, :20]
    whole = NativeFrames(torch.tensor([[12, 20]]).expand(4, 2), torch.ones(4, 15, dtype=torch.bool))
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_video(frame), ours.encode_video(frame, whole), rtol=1e-5, atol=1e-6)


def test_padding_is_read_by_nothing(both, given):
    (_, ours), (video, frames, _) = both, given
    size = frames.size[:, :, None]
    places = torch.stack(torch.meshgrid(*map(torch.arange, video.shape[3:]), indexing="ij")).flatten(1)
    inside = (places < size).all(dim=1).unflatten(1, video.shape[3:])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encode_video(video, frames), ours.encode_video(video.where(inside, 0.9), frames), rtol=0, atol=0
        )


def test_our_weights_are_read_back_by_their_model(both):
    theirs, ours = both
    back, state = to_published(ours), theirs.state_dict()
    assert back.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=0, atol=0, msg=name)
