"""Probes learn from labels, the network under them from videos alone; the best layer of held-out videos is used."""

import io
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.errors import UserError
from filmstrip.measure.complexity import try_out
from filmstrip.protocols import Classifier, find_encoder, find_tokenizer
from filmstrip.runs import experiment
from filmstrip.runs.frozen import read_references
from filmstrip.runs.loading import load_objective
from filmstrip.systems.recognition import probe
from filmstrip.train.lengths import Steps

KINDS = ("tiny", "tiny_toto")


def built(preset, **changes):
    torch.manual_seed(0)
    return replace(systems.find(f"recognition.probe:{preset}").objective, **changes).build()


def batch_of(size, frames, label=None):
    drawn = torch.Generator().manual_seed(1)
    return {
        "video": torch.randint(0, 256, (10, frames, 3, size, size), dtype=torch.uint8, generator=drawn),
        "label": torch.arange(10) % 8 if label is None else label,
        "index": torch.arange(10),
        "seed": torch.arange(10),
    }


def batch_for(preset, **given):
    clip = systems.find(f"recognition.probe:{preset}").data.clip
    return batch_of(clip.size, clip.num_frames, **given)


def descend(objective, batch, steps=3):
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-3)
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        objective(batch).total.backward()
        optimiser.step()
        objective.after_step(step + 1)


@pytest.mark.parametrize("preset", KINDS)
def test_the_network_learns_as_it_would_alone(preset):
    batch = batch_for(preset)
    both, alone = built(preset), built(preset)
    descend(both, batch)
    descend(alone.learner, batch)
    for (name, value), other in zip(both.learner.state_dict().items(), alone.learner.state_dict().values()):
        assert torch.equal(value, other), name
    other_labels = built(preset)
    descend(other_labels, batch_for(preset, label=7 - batch["label"] % 8))
    first, second = both.state_dict(), other_labels.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("learner."))
    assert not torch.equal(first["probes.0.head.weight"], second["probes.0.head.weight"])


@pytest.mark.parametrize("preset", KINDS)
def test_a_frozen_network_stays_as_it_is(preset):
    objective, before = built(preset, frozen=True), built(preset, frozen=True).state_dict()
    descend(objective, batch_for(preset))
    after = objective.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"probes", "held_out_nats"}
    assert not objective.train().learner.training and objective.probes.training
    assert systems.find(f"recognition.probe:{preset}").objective.frozen_parts().keys() <= {
        "learner.encoder.tokenizer"
    }
    assert objective(batch_for(preset)).metrics.keys() & {"learner", "perplexity"} == set()


@pytest.mark.parametrize("preset", KINDS)
def test_loss_is_the_networks_and_each_probes(preset):
    objective, batch = built(preset, hold_out=0), batch_for(preset)
    with torch.no_grad():
        loss = objective.eval()(batch)
        logits = objective.classify_layers(batch["video"])
        expected = sum(torch.nn.functional.cross_entropy(one, batch["label"]) for one in logits)
        torch.testing.assert_close(loss.total, objective.learner(batch).total + expected)
        top1 = (logits.argmax(dim=2) == batch["label"]).float().mean(dim=1)
    assert [loss.metrics[f"top1_layer_{i}"] for i in range(len(top1))] == top1.tolist()


def test_toto_gives_its_layers_with_its_loss():
    learner, batch = built("tiny_toto").learner, batch_for("tiny_toto")
    with torch.no_grad():
        loss, layers = learner.loss_and_layers(batch)
        expected = learner.encoder(batch["video"], layers=True).layers
        assert torch.equal(loss.total, learner(batch).total)
    assert len(layers) == 4
    for one, other in zip(layers, expected):
        torch.testing.assert_close(one, other)
    tokens = {"tokens": learner.encoder.codes(batch).ids, "label": batch["label"], "index": batch["index"]}
    objective = built("tiny_toto")
    torch.testing.assert_close(objective(tokens).total, objective(batch).total)  # codes made beforehand


def test_held_out_videos_teach_no_probe_and_choose_the_layer():
    objective, batch = built("tiny_toto"), batch_for("tiny_toto")
    relabelled = {**batch, "label": batch["label"].clone()}
    relabelled["label"][[4, 9]] = (batch["label"][[4, 9]] + 1) % 8
    grads = []
    for one in (batch, relabelled):
        objective.zero_grad()
        objective(one).total.backward()
        grads.append(objective.probes[1].head.weight.grad.clone())
    assert torch.equal(*grads)
    made = built("tiny_toto")
    made(batch)
    logits = made.classify_layers(batch["video"])[:, [4, 9]]
    nats = [torch.nn.functional.cross_entropy(one, batch["label"][[4, 9]]) for one in logits]
    torch.testing.assert_close(made.held_out_nats, probe.SMOOTHING * torch.stack(nats).detach())
    assert made.layer == torch.stack(nats).argmin()
    kept = made.held_out_nats.clone()
    made({key: value[:4] for key, value in batch.items()})  # none of which is held out
    made.eval()(batch)
    assert torch.equal(made.held_out_nats, kept)


def test_the_chosen_layer_classifies():
    objective, batch = built("tiny_toto").eval(), batch_for("tiny_toto")
    assert isinstance(objective, Classifier)
    with torch.no_grad():
        each = objective.classify_layers(batch["video"])
        for layer in range(4):
            objective.held_out_nats.fill_(2.0)[layer] = 1.0
            assert torch.equal(objective.classify(batch["video"]), each[layer])


def test_layers_learn_at_falling_rates_and_probes_at_the_full_one():
    objective = built("tiny_toto")
    depths = {name: objective.depth_of(name) for name, _ in objective.named_parameters()}
    assert depths["learner.encoder.decoder.embed.weight"] == 0
    assert depths["learner.encoder.decoder.blocks.3.mlp.out.weight"] == 4
    assert {depth for name, depth in depths.items() if name.startswith("probes.")} == {6}
    assert find_encoder(objective) is objective.learner.encoder
    assert find_tokenizer(objective) is objective.learner.tokenizer


@pytest.mark.parametrize("learner", ["recognition.r2plus1d:tiny", "tokenizers.dvae:tiny"])
def test_what_cannot_be_probed_is_refused_before_training(learner):
    run = systems.find("recognition.probe:tiny")
    with pytest.raises(UserError, match=r"has no encoder|does not fit"):
        try_out(replace(run, objective=replace(run.objective, learner=systems.find(learner).objective)))


@pytest.mark.parametrize(
    ("preset", "millions"), [("toto_base_in1k", 120), ("toto_large_k400", 277), ("toto_1b_in1k", 1130)]
)
def test_presets_have_the_papers_network(preset, millions):
    run = systems.find(f"recognition.probe:{preset}")
    with torch.device("meta"):
        objective = run.objective.build()
    count = sum(p.numel() for p in objective.encoder.decoder.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)
    assert (run.optim.lr, run.optim.layer_decay, run.train.length.epochs) == (6e-5, 0.9, 90)
    grid = objective.encoder.grid
    assert tuple(grid) == ((1, 32, 32) if "in1k" in preset else (16, 16, 16))
    assert objective.encoder.decoder.config.rope_base == (50_000 if "in1k" in preset else 10_000)
    assert len(objective.probes) == len(objective.encoder.decoder.blocks)


def short(address, folder, **changes):
    run = systems.find(address)
    run = replace(run, train=replace(run.train, length=Steps(2)), data=replace(run.data, num_workers=0), **changes)
    return experiment.train(run, folder)


def test_from_pretraining_to_the_names_of_files(tmp_path, synthetic_cache):
    """The command of the documentation, on a network of another size than the preset's."""
    toto = systems.find("pretraining.toto:tiny")
    short("pretraining.toto", tmp_path / "toto", objective=replace(toto.objective, width=48, num_heads=3))
    words = ["recognition.probe", "--init", str(tmp_path / "toto"), "--train.steps", "2", "--data.num-workers", "0"]
    run, _ = run_from(Train, words, "filmstrip train")
    assert run.objective.learner.width == 48 and run.data.clip == toto.data.clip
    with pytest.raises(UserError, match=r"leave out data\.clip\.size"):
        run_from(Train, [*words, "--data.clip.size", "64"], "filmstrip train")
    assert main(["train", *words, "--out", str(tmp_path / "named")]) == 0
    assert read_references(tmp_path / "named").keys() == {"init"}
    objective, run = load_objective(tmp_path / "named", "cpu")
    given, _ = load_objective(tmp_path / "toto", "cpu")
    own, theirs = objective.learner.state_dict(), given.state_dict()
    assert all(torch.equal(own[n], theirs[n]) for n in own if ".tokenizer." in n)
    assert not torch.equal(own["encoder.decoder.embed.weight"], theirs["encoder.decoder.embed.weight"])
    video = next(run.data.synthetic.generate().rglob("*.mp4"))
    with redirect_stdout(io.StringIO()) as said:
        assert main(["predict", str(tmp_path / "named"), str(video)]) == 0
    assert "%" in said.getvalue()
    # Probes of a frozen network keep all of it by reference, and another run of probes starts from this one.
    frozen = ["train", "recognition.probe", "--init", str(tmp_path / "named"), "--objective.frozen", *words[3:]]
    assert main([*frozen, "--out", str(tmp_path / "frozen")]) == 0
    again, _ = load_objective(tmp_path / "frozen", "cpu")
    assert all(torch.equal(value, own[name]) for name, value in again.learner.state_dict().items())


def test_an_untrained_tokenizer_is_refused(tmp_path, synthetic_cache):
    run = systems.find("recognition.probe:tiny_toto")
    learner = replace(run.objective.learner, untrained_tokenizer=False)
    with pytest.raises(UserError, match="--init RUN"):
        short("recognition.probe:tiny_toto", tmp_path / "run", objective=replace(run.objective, learner=learner))
