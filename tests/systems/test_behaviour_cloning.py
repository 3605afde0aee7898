import dataclasses
import shutil

import pytest
import torch
from drawn import draw_batch
from torch import nn

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.synthetic.demonstrations import Demonstrations, TableTask
from filmstrip.errors import UserError
from filmstrip.objectives.teachers import ImageTransformerConfig
from filmstrip.protocols import Policy
from filmstrip.runs import experiment
from filmstrip.runs.loading import load_objective
from filmstrip.train.lengths import Steps
from run_folders import save_run

RUN = systems.find("control.behaviour_cloning:tiny")
INFO = ClipInfo(classes=(), num_train=1, directional=True, action_dim=7, state_dim=3)


@pytest.fixture
def batch():
    return draw_batch(RUN.data, size=3, seed=1)


def policy_of(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(RUN.objective, **changes).build()


def test_the_action_after_a_frame_is_learnt_unless_an_expert_says_more(batch):
    policy = policy_of(norm="layer").eval()
    actions = torch.stack([policy.act(batch["video"][:, t], batch["state"][:, t]) for t in range(4)], dim=1)
    taken = batch["action"].clone()
    taken[:, 1:] = actions[:, :-1]
    assert policy({**batch, "action": taken}).total < 1e-10
    taken[:, 0] += 1  # what led to the first frame comes before all that is seen
    assert policy({**batch, "action": taken}).total < 1e-10
    assert policy({**batch, "action": taken + 1, "expert": actions}).total < 1e-10
    assert policy({**batch, "expert": actions + torch.tensor([2.0, 0.0])}).total.item() == pytest.approx(
        2.0, rel=1e-4
    )


def test_the_head_is_the_published_one(batch):
    """MVP's actor as a plain sequence of layers: projections side by side, three hidden layers with SELU."""
    policy = policy_of(norm="none").eval()
    head = policy.head
    layers = [nn.Linear(256, 256), nn.SELU(), nn.Linear(256, 128), nn.SELU(), nn.Linear(128, 64), nn.SELU()]
    reference = nn.Sequential(*layers, nn.Linear(64, 2))
    reference.load_state_dict(head.actor.state_dict())
    with torch.no_grad():
        tokens = policy.encoder.encoder(batch["video"][:, :1]).pooled()
        seen = torch.cat([head.project(tokens), head.state(batch["state"][:, 0])], dim=1)
        assert torch.allclose(policy.act(batch["video"][:, 0], batch["state"][:, 0]), reference(seen), atol=1e-6)
    weight = head.actor[0].weight
    assert torch.allclose(weight @ weight.T, 2 * torch.eye(256), atol=1e-4)


def test_a_frozen_encoder_neither_learns_nor_changes_its_mode(batch):
    policy = policy_of().train()
    assert not policy.encoder.encoder.training and policy.head.training
    policy(batch).total.backward()
    assert all(p.grad is None for p in policy.encoder.parameters())
    learning = policy_of(frozen=False).train()
    learning.head.actor[-1].weight.data.normal_()
    learning(batch).total.backward()
    assert learning.encoder.encoder.training
    assert all(p.grad is not None for p in learning.encoder.parameters())
    assert dataclasses.replace(RUN.objective, frozen=False).frozen_parts() == {}
    assert dataclasses.replace(RUN.objective, frozen=False).frozen_networks() == ()


@pytest.mark.parametrize("address", ["pretraining.videomae:tiny", "pretraining.toto:tiny", "pretraining.vjepa:tiny"])
def test_encoders_of_clips_are_shown_single_frames_of_any_size(batch, address):
    encoder = systems.find(address).objective
    policy = policy_of(encoder=encoder, layer=1).eval()
    vectors = policy.encoder.frames(batch["video"])
    assert vectors.shape == (3, 4, policy.encoder.width)
    apart = policy.encoder.frames(batch["video"][:, 2:3])
    assert torch.allclose(vectors[:, 2:3], apart, atol=1e-4)
    assert not torch.allclose(vectors[:, 1:2], apart, atol=1e-4)


def test_sizes_come_from_the_data():
    free = dataclasses.replace(RUN.objective, action_dim=0, state_dim=0)
    bound = free.bind(INFO)
    assert (bound.action_dim, bound.state_dim) == (7, 3)
    policy = bound.build()
    assert isinstance(policy, Policy) and policy.requires == ("video", "action", "state")
    with pytest.raises(UserError, match=r"needs a state of 3 numbers beside the image, and none was given"):
        policy.act(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"objective\.action_dim is 2, and the videos have 7"):
        RUN.objective.bind(INFO)
    with pytest.raises(UserError, match=r"learns from actions that are vectors, and these videos have none"):
        free.bind(dataclasses.replace(INFO, action_dim=0))
    with pytest.raises(UserError, match=r"objective\.layer is 2, and FrameTransformer has 2 layers"):
        policy_of(layer=2)


def test_an_untrained_encoder_has_to_be_asked_for(tmp_path):
    from filmstrip.runs.teachers import start_teachers

    run = dataclasses.replace(RUN, objective=dataclasses.replace(RUN.objective, untrained_encoders=False))
    with pytest.raises(UserError, match=r"the encoder encoder is untrained.*--objective\.encoder-run SOURCE"):
        start_teachers(run.objective.build(), run)
    assert isinstance(RUN.objective.encoder, ImageTransformerConfig)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_is_kept_by_reference_and_a_trained_one_in_the_run(tmp_path, monkeypatch, frozen):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    save_run(tmp_path / "encoder", "pretraining.videomae:tiny")
    task = TableTask(steps=3)
    run = dataclasses.replace(
        RUN,
        data=dataclasses.replace(
            RUN.data,
            synthetic=Demonstrations(task=task, num_train=2, num_test=1, size=32),
            num_workers=0,
            batch_size=2,
        ),
        objective=dataclasses.replace(
            RUN.objective, encoder_run=str(tmp_path / "encoder"), frozen=frozen, untrained_encoders=False, layer=-1
        ),
        train=dataclasses.replace(RUN.train, length=Steps(1)),
        evals=(),
    )
    trained = experiment.train(run, tmp_path / "policy").objective.eval()
    frames, state = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8), torch.rand(2, 2)
    with torch.no_grad():
        expected = trained.act(frames, state)
        assert torch.equal(load_objective(tmp_path / "policy", "cpu")[0].act(frames, state), expected)
    shutil.rmtree(tmp_path / "encoder")
    if frozen:
        with pytest.raises(UserError, match=r"frozen part that objective\.encoder_run named by reference"):
            load_objective(tmp_path / "policy", "cpu")
    else:
        with torch.no_grad():
            assert torch.equal(load_objective(tmp_path / "policy", "cpu")[0].act(frames, state), expected)
