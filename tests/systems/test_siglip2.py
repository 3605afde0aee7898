"""SigLIP 2: what its decoder sees and learns, when self-distillation begins, what is chosen, and what is exported."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.models.dual_encoder import SIGLIP_PIXELS
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.masks import causal
from filmstrip.protocols import Refers
from filmstrip.systems.language.siglip import SigLIPConfig
from filmstrip.systems.language.siglip2 import DecoderConfig, DistillationConfig, SigLIP2Config, curation_scores
from filmstrip.systems.language.siglip2.decoder import CaptionDecoder
from filmstrip.weights.released import to_published

SHAPE = {"width": 24, "depth": 1, "num_heads": 2, "linear_init": "glorot"}
TEXT = TextArchitecture(**SHAPE, vocab_size=20, max_length=8)
VISION = ImageTowerArchitecture(**SHAPE, num_frames=2, size=16, patch_size=4, **SIGLIP_PIXELS)
CONFIG = SigLIP2Config(vision=VISION, text=TEXT, decoder=DecoderConfig(depth=2, bins=8, max_phrase=4), bias=-2.0)
TAIL = DistillationConfig(after=3, crops=2, crop_size=8, hidden=16, dim=8, momentum=0.9)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return CaptionDecoder(CONFIG.decoder, TEXT, 24).eval()


def given(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 20, (rows, 8), generator=generator)
    return ids, torch.tensor([8, 5, 3])[:rows], torch.randn(rows, 10, 24, generator=generator)


def batch(rows=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(rows, 2, 1, 2, generator=generator) / 2
    return {
        "video": torch.randint(0, 256, (rows, 2, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "text": torch.randint(3, 20, (rows, 8), generator=generator),
        "text_length": torch.full((rows,), 8),
        "boxes": torch.cat([corner, corner + 0.4], dim=-1).expand(-1, -1, 2, -1),
        "phrase": torch.randint(3, 20, (rows, 2, 4), generator=generator),
        "phrase_length": torch.tensor([[4, 3]] * rows),
        "index": torch.arange(rows),
        "seed": torch.arange(rows) + 1,
    }


def test_a_caption_that_is_written_in_turn_sees_only_what_stands_before(decoder):
    ids, lengths, context = given()
    later = torch.where(torch.arange(8) < lengths[:, None], ids, 4)
    in_turn = torch.zeros(3, dtype=torch.bool)
    with torch.no_grad():
        loss = decoder.caption_loss(ids, lengths, context, in_turn)
        torch.testing.assert_close(decoder.caption_loss(later, lengths, context, in_turn), loss)
        # By hand: each token after its own beginning, which is all that the network is given.
        total, count = 0.0, 0
        for row, length, seen in zip(ids, lengths.tolist(), context):
            for i in range(length):
                before = torch.cat([torch.tensor([decoder.caption_id]), row[:i]])[None]
                hidden = decoder.text(before, mask=causal(), context=seen[None])[0, -1]
                total -= F.log_softmax(hidden @ decoder.text.embed.weight.T, dim=0)[row[i]]
                count += 1
        torch.testing.assert_close(loss, total / count, rtol=1e-5, atol=1e-6)


def test_a_caption_that_is_written_at_once_is_predicted_from_places_alone(decoder):
    ids, lengths, context = given()
    at_once = torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        hidden = decoder.text(torch.full_like(ids, decoder.mask_id), context=context)
        logits = (hidden @ decoder.text.embed.weight.T).log_softmax(dim=-1)
        there = torch.arange(8) < lengths[:, None]
        expected = -logits.gather(2, ids[..., None])[..., 0][there].mean()
        torch.testing.assert_close(decoder.caption_loss(ids, lengths, context, at_once), expected)


def test_regions_are_written_from_one_another(decoder):
    _, _, context = given()
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1], [0.3, 0.3, 0.6, 0.6]])
    phrase, lengths = torch.tensor([[5, 6, 2, 0], [7, 2, 0, 0], [8, 9, 10, 2]]), torch.tensor([3, 2, 4])
    assert (decoder.to_ids(boxes[1]) - decoder.first_bin).tolist() == [0, 0, 7, 7]
    with torch.no_grad():
        referring, grounded = decoder.region_losses(boxes, phrase, lengths, context)
        padded = torch.where(phrase == 0, 11, phrase)
        same = decoder.region_losses(boxes, padded, lengths, context)
        torch.testing.assert_close(torch.stack(same), torch.stack([referring, grounded]))
        more = decoder.region_losses(
            torch.cat([boxes, boxes[:1]]),
            torch.cat([phrase, phrase[:1]]),
            torch.tensor([3, 2, 4, 0]),
            torch.cat([context, context[:1]]),
        )
        torch.testing.assert_close(torch.stack(more), torch.stack([referring, grounded]))  # padding counts nothing
        named = decoder.region_losses(boxes, torch.where(phrase == 8, 12, phrase), lengths, context)
        moved = decoder.region_losses(boxes.roll(1, 0), phrase, lengths, context)
    assert not torch.isclose(named[0], referring) and not torch.isclose(moved[1], grounded)


def test_the_decoder_reads_no_padding_of_frames(decoder):
    ids, lengths, context = given()
    valid = torch.arange(10) < torch.tensor([[10], [4], [7]])
    other = torch.where(valid[..., None], context, 9.0)
    nobody = torch.zeros(3, dtype=torch.bool)
    with torch.no_grad():
        losses = [decoder.caption_loss(ids, lengths, seen, nobody, valid) for seen in (context, other)]
        boxes = [decoder.locate(ids[:, :4], torch.tensor([4, 2, 3]), seen, valid) for seen in (context, other)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*boxes)


def test_boxes_that_were_learnt_are_found_again():
    torch.manual_seed(0)
    objective, shown = CONFIG.build(), batch(2)
    shown["boxes"] = shown["boxes"][:, :, :1].expand(-1, -1, 2, -1)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for step in range(40):
        optimiser.zero_grad()
        objective(shown | {"seed": shown["seed"] + 10 * step}).total.backward()
        optimiser.step()
    assert isinstance(objective, Refers)
    found = objective.eval().locate(shown["video"], shown["phrase"], shown["phrase_length"])
    assert found.shape == (2, 2, 2, 4)
    assert ((found - shown["boxes"]).abs() <= 0.5 / 8 + 1e-6).all(dim=-1).float().mean() > 0.8


def test_self_distillation_begins_after_its_steps_with_the_tower_as_it_is_then():
    torch.manual_seed(0)
    objective, shown = dataclasses.replace(CONFIG, distillation=TAIL).build(), batch()
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    teacher = list(objective.distillation.teacher[0].parameters())
    for step in range(1, 6):
        optimiser.zero_grad()
        before = [p.clone() for p in teacher]
        loss = objective.train()(shown)
        assert ("loss_masked" in loss.metrics) == (step > 3)
        loss.total.backward()
        optimiser.step()
        objective.after_step(step)
        student = list(objective.encoder.parameters())
        expected = (
            before if step < 3 else student if step == 3 else [0.9 * a + 0.1 * b for a, b in zip(before, student)]
        )
        for one, other in zip(teacher, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert not objective.distillation.teacher.training and all(p.grad is None for p in teacher)
    again = dataclasses.replace(CONFIG, distillation=TAIL).build()
    again.load_state_dict(objective.state_dict())
    torch.testing.assert_close(again(shown).total, objective(shown).total)


def test_masked_patches_are_not_seen():
    torch.manual_seed(0)
    tower = ImageTower(VISION, resizes=True).eval()
    video = torch.rand(2, 2, 3, 16, 16)
    masked = torch.zeros(2, 16, dtype=torch.bool)
    masked[:, [0, 5]] = True
    other = video.clone()
    other[..., :4, :4], other[..., 4:8, 4:8] = 0.3, 0.6  # patches 0 and 5
    vector = torch.randn(24)
    with torch.no_grad():
        seen = [tower(each, hidden=(masked, vector)).tokens for each in (video, other)]
        torch.testing.assert_close(*seen)
        assert not torch.allclose(tower(video).tokens, tower(other).tokens)


def test_the_pairs_with_most_to_learn_are_chosen():
    certain, student = torch.tensor([9.0, 9.0, -9.0, 9.0]), torch.tensor([0.0, 8.0, 0.0, -1.0])
    p = student.double().sigmoid()
    entropy = -p * p.log() - (1 - p) * (1 - p).log()
    expected = certain.double().sigmoid() * entropy
    torch.testing.assert_close(curation_scores(certain, student).double(), expected, rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, decoder=None, curator=SigLIPConfig(vision=VISION, text=TEXT, bias=-2.0))
    objective, shown = config.build(), batch(6)
    chosen = objective.curated(shown)
    with torch.no_grad():
        logits = [
            model.similarity(model.encode_video(shown["video"]), model.encode_text(shown["text"], None)).diagonal()
            for model in (objective.curator, objective)
        ]
    best = curation_scores(*logits).topk(3).indices.sort().values
    assert chosen["index"].tolist() == best.tolist() and chosen["video"].shape[0] == 3
    objective(shown).total.backward()
    assert all(p.grad is None for p in objective.curator.parameters())
    assert objective.encoder.pos_embed.grad is not None


def test_only_the_towers_are_exported():
    plain = SigLIPConfig(vision=VISION, text=TEXT).build()
    whole = dataclasses.replace(CONFIG, distillation=TAIL).build()
    assert to_published(whole).keys() == to_published(plain).keys()
    naflex, fixed = to_published(whole, "siglip2"), to_published(whole)
    name = "vision_model.embeddings.patch_embedding.weight"
    assert naflex[name].shape == (24, 48) and fixed[name].shape == (24, 3, 4, 4)


def test_it_begins_from_a_siglip_and_from_its_own_at_another_size():
    torch.manual_seed(0)
    plain = SigLIPConfig(vision=VISION, text=TEXT).build()
    larger = dataclasses.replace(CONFIG, vision=dataclasses.replace(VISION, size=24))
    own = larger.build()
    taken = own.taken_from(plain)
    assert taken["encoder.pos_embed"].shape == (36, 24) and not any("decoder" in name for name in taken)
    table = plain.encoder.pos_embed.T.view(1, 24, 4, 4)
    expected = F.interpolate(table, size=(6, 6), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(taken["encoder.pos_embed"], expected[0].flatten(1).T, rtol=1e-4, atol=1e-6)
    ended = dataclasses.replace(CONFIG, distillation=TAIL).build()
    ended.after_step(5)
    taken = own.taken_from(ended)
    assert any(name.startswith("decoder.") for name in taken) and not any("distillation" in name for name in taken)
    own.load_state_dict(taken, strict=False)
    smaller = F.interpolate(table, size=(2, 3), mode="bilinear", antialias=True, align_corners=False)
    with torch.no_grad():
        found = plain.encoder
        found.resizes = True
        positions = found._positions(found.grid._replace(h=2, w=3))
    torch.testing.assert_close(positions, smaller[0].flatten(1).T.detach(), rtol=1e-4, atol=1e-6)


def test_what_it_cannot_learn_from_is_refused_before_the_first_step():
    run = systems.find("language.siglip2")
    info = info_for(run.data.reads)
    with pytest.raises(UserError, match="read data with captions"):
        run.bound(DataInfo(classes=(), num_train=1, directional=False))
    captions = systems.find("language.siglip").data.reads
    with pytest.raises(UserError, match=r"read data with regions .*--objective.decoder.no-regions"):
        run.bound(info_for(captions))
    alone = dataclasses.replace(run.objective.decoder, regions=False)
    objective = dataclasses.replace(run.objective, decoder=alone).bind(info_for(captions)).build()
    losses = objective(draw_batch(dataclasses.replace(run.data, reads=captions), size=2, seed=0)).metrics
    assert "loss_caption" in losses and "loss_referring" not in losses
    with pytest.raises(UserError, match="no decoder that learnt from regions"):
        objective.locate(torch.zeros(1, 1, 3, 48, 48), torch.zeros(1, 1, 2).long(), torch.ones(1, 1).long())
    with pytest.raises(UserError, match="phrases of 9 tokens are longer than the decoder's 8"):
        run.bound(dataclasses.replace(info, phrase_length=9))
    with pytest.raises(UserError, match="local views of 10 pixels are no whole patches of 4"):
        dataclasses.replace(CONFIG, distillation=dataclasses.replace(TAIL, crop_size=10)).build()
    with pytest.raises(UserError, match="sigmoid loss"):
        dataclasses.replace(CONFIG, loss="softmax").build()
