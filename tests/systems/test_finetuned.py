"""Fine-tuning: what is trained, with which losses, and CATER's presets."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.protocols import Classifier
from filmstrip.systems.recognition.finetuned import tiny, tiny_toto, toto_large_cater_16, toto_large_cater_32


def bound(run):
    return run.bound(info_for(run.data.reads)).objective


def test_the_encoder_is_trained_with_its_classifier():
    network = bound(tiny()).build()
    network(draw_batch(tiny().data, size=2, seed=0)).total.backward()
    assert isinstance(network, Classifier)
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert network.depth_of("head.head.weight") > network.depth_of("learner.blocks.0.norm1.weight")


def test_a_frozen_one_is_not():
    network = replace(bound(tiny()), frozen=True).build().train()
    network(draw_batch(tiny().data, size=2, seed=0)).total.backward()
    assert not network.encoder.training
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None} == {"head"}


def test_its_own_loss_is_added_with_its_weight():
    run = tiny_toto()
    torch.manual_seed(0)
    network = replace(bound(run), learner_weight=0.5).build()
    batch = draw_batch(run.data, size=2, seed=0)
    loss = network(batch)
    with torch.no_grad():
        own = network.learner(batch).total
    assert loss.total.item() == pytest.approx(loss.metrics["nats"].item() + 0.5 * own.item(), rel=1e-5)


def test_training_and_classification_read_the_same_tokens():
    run = tiny_toto()
    network = bound(run).build().eval()
    batch = draw_batch(run.data, size=2, seed=0)
    with torch.no_grad():
        trained, seen = network.features(batch)[1], network.features_of(batch["video"])
    torch.testing.assert_close(trained.tokens, seen.tokens)
    assert trained.grid == seen.grid


def test_what_cannot_go_on_learning_is_refused():
    videomae = bound(tiny())
    with pytest.raises(UserError, match="learner_weight to 0"):
        replace(videomae, learner=systems.find("recognition.vit:tiny").objective, learner_weight=1.0).build()
    with pytest.raises(UserError, match="does not learn"):
        replace(bound(tiny_toto()), frozen=True).build()


def test_presets_of_cater_see_16_and_32_frames_of_which_none_is_mirrored():
    for run, codes in ((toto_large_cater_16(), 4096), (toto_large_cater_32(), 8192)):
        with torch.device("meta"):
            network = run.objective.build()
        assert network.head.head.out_features == 36 and run.data.augment.mirror == 0
        t, h, w = network.encoder.grid
        assert t * h * w == codes and run.data.clip.sampling == "uniform"
