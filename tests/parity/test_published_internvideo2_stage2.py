"""InternVideo2's second stage (``language.internvideo2``) and the published code, by stored outputs."""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.models.aligned_encoder import AlignedArchitecture
from filmstrip.objectives.contrastive import Rows, matching
from filmstrip.objectives.matching import pairs_loss, valid_tokens
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.internvideo2 import BERT_LARGE, InternVideo2TextConfig
from filmstrip.weights.released import from_published, published_names, to_published

CONFIG = InternVideo2TextConfig(
    vision=AlignedArchitecture(
        width=48,
        depth=3,
        num_heads=4,
        num_frames=4,
        size=32,
        patch_size=(1, 8, 8),
        layer_scale=0.1,
        pool_width=24,
        pool_num_heads=2,
    ),
    text=replace(BERT_LARGE, vocab_size=40, width=32, depth=4, num_heads=4, max_length=12, cross_from=2),
    embed_dim=20,
)
SEGMENTS = "text_encoder.bert.embeddings.token_type_embeddings.weight"
PLACES = "text_encoder.bert.embeddings.position_embeddings.weight"


def published_weights():
    """Those of the recipe, and a temperature above zero."""
    return stored("internvideo2_stage2").weights() | {"temp": torch.tensor(0.07)}


def texts():
    place, lengths = torch.arange(9), torch.tensor([9, 6, 7])
    ids = torch.where(place < lengths[:, None], (recipe_video("text", (3, 9)) % 30 + 4).long(), 0)
    ids[:, 0] = 1
    return ids, lengths, place


@torch.no_grad()
def test_vectors_matches_and_losses_are_the_published_ones():
    kept, model = stored("internvideo2_stage2"), CONFIG.build().eval()
    model.load_state_dict(from_published(published_weights(), model), strict=False)
    video, (ids, lengths, place) = recipe_video("video", (3, 4, 3, 32, 32)), texts()
    valid, clip = valid_tokens(ids, lengths), torch.arange(3)[:, None]
    assert kept.error("tokens", model.see(video)) < TOLERANCE
    assert kept.error("video", model.encode_video(video)) < TOLERANCE
    assert kept.error("text", model.encode_text(ids, lengths)) < TOLERANCE
    tokens = model.read(ids, valid)
    assert kept.error("text_tokens", tokens[valid]) < TOLERANCE
    assert kept.error("match", model.matched(model.see(video), tokens, valid)) < TOLERANCE
    visible = ((7 * torch.arange(64) + 3 * clip) % 64 < 13).nonzero()[:, 1].view(3, 13)
    assert model.visible(torch.arange(3)).shape == visible.shape
    seen = model.see(video, visible)
    assert kept.error("seen", seen) < TOLERANCE
    vectors = model.video_vectors(seen), model.text_vectors(tokens)
    same = torch.eye(3, dtype=torch.bool)
    logits = model.similarity(*vectors)
    rows = [Rows(each, ids, torch.arange(3)) for each in vectors]
    assert torch.equal(matching(*rows), same)
    assert kept.error("contrast", model._softmax(*rows)) < TOLERANCE
    videos, other_texts = (x.masked_fill(same, -torch.inf).argmax(dim=1) for x in (logits.T, logits))
    found, _ = pairs_loss(model.matched, seen, tokens, valid, same, videos, other_texts)
    assert kept.error("matching", found) < TOLERANCE
    wanted = valid & ((place + clip) % 3 == 1) & (place > 0)
    assert kept.error("words", model.word_loss(seen, ids, valid, torch.where(wanted, 39, ids), wanted)) < TOLERANCE
    assert not kept.other_eps(model, published_names(model))


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, model, file = published_weights(), CONFIG.build(), tmp_path / "stage2.pt"
    torch.save({"module": weights}, file)
    start(model, file)
    back = to_published(model)
    # What aligned the first stage, and images' positions, are left out.
    theirs = {name for name in weights if "clip_decoder" not in name and "img_pos" not in name} - {
        "vision_encoder.clip_pos_embed"
    }
    assert back.keys() == theirs
    places = back.pop(PLACES) + back.pop(SEGMENTS)[0]
    assert torch.equal(places, weights[PLACES] + weights[SEGMENTS][0])
    assert all(torch.allclose(tensor, weights[name], rtol=1e-6, atol=0) for name, tensor in back.items())
    del weights["itm_head.weight"]
    torch.save(weights, file)
    with pytest.raises(UserError, match="itm_head"):
        start(CONFIG.build(), file)
