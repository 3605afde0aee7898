"""InternVideo's half that learns from text: what its captioner reads, and where it starts."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.nn.decoding import Writing
from filmstrip.nn.masks import causal
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Captioner, DualEncoder

RUN = systems.find("language.internvideo")
RUN = RUN.bound(info_for(RUN.data.reads))


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(RUN.objective, **changes).build()


@torch.no_grad()
def test_losses_are_those_of_torch():
    objective = built().eval()
    assert isinstance(objective, DualEncoder)
    batch = draw_batch(RUN.data, size=4, seed=1)
    ids, lengths = batch["text"], batch["text_length"]
    logits = objective.similarity(objective.encode_video(batch["video"]), objective.encode_text(ids, lengths))
    label, loss = torch.arange(4), objective(batch)
    contrast = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    torch.testing.assert_close(loss.metrics["contrast"], contrast)
    seen = objective.encoder(batch["video"])
    context = torch.cat([seen.pooled()[:, None], seen.tokens], dim=1)
    said = objective.captioner(objective.text(ids, mask=causal())[:, :-1], context)
    words = [said[i, : n - 1] for i, n in enumerate(lengths.tolist())]
    right = [ids[i, 1:n] for i, n in enumerate(lengths.tolist())]
    torch.testing.assert_close(loss.metrics["captioning"], F.cross_entropy(torch.cat(words), torch.cat(right)))
    torch.testing.assert_close(loss.total, contrast + loss.metrics["captioning"])


@torch.no_grad()
def test_a_word_depends_on_the_clip_and_on_words_before_it():
    objective = built().eval()
    for parameter in objective.captioner.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(0)
    tokens, context = (torch.randn(2, 5, 64, generator=generator) for _ in range(2))
    before = objective.captioner(tokens, context)
    later = tokens.clone()
    later[:, 3] += 1
    after = objective.captioner(later, context)
    assert torch.equal(after[:, :3], before[:, :3]) and not torch.allclose(after[:, 3:], before[:, 3:])
    assert not torch.allclose(objective.captioner(tokens, context + 1), before)
    swapped = objective.captioner(tokens[:, [1, 0, 2, 3, 4]], context)
    assert not torch.allclose(swapped[:, 4], before[:, 4])


@torch.no_grad()
def test_captions_are_written_from_what_was_said_and_seen():
    objective = built().eval()
    for parameter in objective.captioner.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert isinstance(objective, Captioner) and objective.config.start == 1
    seen = objective.see(draw_batch(RUN.data, size=3, seed=1)["video"])
    said = objective.caption(seen, (7, 9), end=2, writing=Writing(max_tokens=5))
    for row, text in zip(seen, said.tolist()):
        ids = [1, 7, 9]
        for token in text:
            tokens = objective.text(torch.tensor([ids]), mask=causal())
            logits = objective.captioner(tokens, row[None])[0, -1]
            logits[1] = -torch.inf  # a text does not start again
            assert token == (2 if ids[3:] and ids[-1] == 2 else int(logits.argmax()))
            ids.append(token)
    sampled = Writing(max_tokens=5, sampling=Sampling(temperature=1.0))
    drawn, alone = objective.caption(seen, end=2, seed=4, writing=sampled), seen[2:]
    same = objective.caption(alone, end=2, seed=6, writing=sampled)
    assert drawn[2, : same.shape[1]].tolist() == same[0].tolist()
    assert objective.caption(seen, end=2, writing=Writing(max_tokens=5, beams=3)).shape[0] == 3
    with pytest.raises(UserError, match="are longer than the 16 tokens"):
        objective.caption(seen, end=2, writing=Writing(max_tokens=16))
    with pytest.raises(UserError, match="texts without a start"):
        built(start=None).caption(seen, end=2)


def test_a_classifier_starts_its_encoder():
    objective = built()
    torch.manual_seed(1)
    classifier = RUN.objective.vision.build()
    taken = objective.taken_from(classifier)
    assert {name for name in objective.state_dict() if name.startswith("encoder.")} == set(taken)
    objective.load_state_dict(taken, strict=False)
    video = draw_batch(RUN.data, size=2, seed=0)["video"]
    with torch.no_grad():
        torch.testing.assert_close(
            objective.eval().encoder(video).pooled(), classifier.eval().encoder(video).pooled()
        )
    assert objective.taken_from(systems.find("language.siglip").objective.build()) is None


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="read data with captions"):
        RUN.bound(DataInfo(classes=(), num_train=1, directional=False))
    info = info_for(RUN.data.reads)
    with pytest.raises(UserError, match="captions of 17 tokens are longer than the network's 16"):
        RUN.bound(dataclasses.replace(info, max_length=17))
    with pytest.raises(UserError, match="no encoder that could see clips"):
        built(vision=systems.find("tokenizers.vqgan").objective)
