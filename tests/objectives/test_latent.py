import dataclasses
import hashlib
import io
import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from torch import nn

from filmstrip.commands.work.show import show
from filmstrip.errors import UserError
from filmstrip.objectives.latent import LatentConfig, LatentObjective
from filmstrip.protocols import Loss, Tokens
from filmstrip.runs import experiment, loading, tokenizers
from filmstrip.runs.config import read_config
from filmstrip.runs.frozen import copy_whole
from filmstrip.runs.run_folder import RunFolder
from filmstrip.systems.tokenizers.vae_kl import tiny as vae_kl
from filmstrip.systems.tokenizers.vqgan import tiny as vqgan
from filmstrip.systems.tokenizers.vqvae3d import tiny as vqvae3d
from filmstrip.train.lengths import Steps


class Histogram(LatentObjective):
    """The smallest prior there is: all codes alike and independent."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.logits = nn.Parameter(torch.zeros(self.codebook_size))

    def forward(self, batch, phase="main"):
        loss = -self.logits.log_softmax(0)[self.codes(batch).ids].mean()
        return Loss(loss, {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistogramConfig(LatentConfig):
    def build(self):
        return Histogram(self.build_tokenizer(), num_frames=self.num_frames, size=self.size)


# Run folders name configurations of filmstrip only.
HistogramConfig.__module__ = "filmstrip.objectives.latent"


@pytest.fixture
def config():
    return HistogramConfig(tokenizer=vqvae3d().objective, num_frames=8, size=32)


@pytest.fixture
def video():
    return torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_tokenizer_is_frozen(config, video):
    objective = config.build().train()
    assert objective.training and not any(m.training for m in objective.tokenizer.modules())
    objective({"video": video}).total.backward()
    (phase,) = objective.phases()
    assert [name for group in objective.param_groups(phase) for name in group.names] == ["logits"]
    before = {name: value.clone() for name, value in objective.tokenizer.state_dict().items()}
    objective.after_step(1)
    assert all(torch.equal(before[name], value) for name, value in objective.tokenizer.state_dict().items())


def test_codes_come_from_the_batch_if_it_has_them(config, video):
    objective = config.build()
    fresh = objective.codes({"video": video})
    assert fresh.grid == objective.grid == (4, 8, 8) and fresh.ids.shape == (2, 256)
    cached = torch.randint(0, 64, (2, 256))
    assert objective.codes({"video": video, "tokens": cached}).ids is cached
    shown = objective.video_of(fresh)
    assert shown.shape == video.shape and shown.min() >= 0 and shown.max() <= 1
    torch.testing.assert_close(shown, objective.tokenizer.decode(Tokens(fresh.grid, ids=fresh.ids)))


def test_codes_are_the_same_under_autocast(config, video):
    objective = config.build()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = objective.codes({"video": video})
    assert torch.equal(mixed.ids, objective.codes({"video": video}).ids)


def test_what_does_not_fit_is_refused(config):
    objective = config.build()
    with pytest.raises(UserError, match="places for 256"):
        objective.codes({"tokens": torch.zeros(2, 255, dtype=torch.int64)})
    with pytest.raises(UserError, match="'video' or 'tokens'"):
        objective.codes({"label": torch.zeros(2)})
    with pytest.raises(UserError, match="no multiple"):
        dataclasses.replace(config, num_frames=7).build()
    with pytest.raises(UserError, match="makes no codes"):
        dataclasses.replace(config, tokenizer=vae_kl().objective).build()


def test_what_only_training_a_tokenizer_needs_is_left_out():
    run = vqgan()
    objective = HistogramConfig(tokenizer=run.objective, num_frames=2, size=32).build()
    assert not any("discriminator" in name or "perceptual" in name for name in objective.state_dict())
    assert objective.codes({"video": torch.zeros(1, 2, 3, 32, 32)}).ids.shape[0] == 1


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A tokenizer's run folder, with weights that nothing else has."""
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    run = vqvae3d()
    network = dataclasses.replace(run.objective, codebook=dataclasses.replace(run.objective.codebook, size=32))
    run = dataclasses.replace(
        run,
        data=dataclasses.replace(
            run.data,
            num_workers=0,
            batch_size=2,
            synthetic=dataclasses.replace(run.data.synthetic, train_per_class=1, test_per_class=1),
        ),
        objective=network,
        train=dataclasses.replace(run.train, length=Steps(1)),
    )
    experiment.train(run, tmp_path / "tokenizer")
    return run, tmp_path / "tokenizer"


@pytest.fixture
def prior(trained, config, monkeypatch, tmp_path):
    """A prior's run, trained for a step on the codes of the tokenizer."""
    monkeypatch.setattr("filmstrip.objectives.latent.HistogramConfig", HistogramConfig, raising=False)
    of_tokenizer, folder = trained
    run = dataclasses.replace(of_tokenizer, objective=dataclasses.replace(config, tokenizer_run=str(folder)))
    experiment.train(run, tmp_path / "prior")
    return run, tmp_path / "prior"


def names_in(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


def test_a_tokenizers_run_is_taken_by_reference_and_never_copied(trained, prior, tmp_path):
    (of_tokenizer, folder), (run, begun) = trained, prior
    weights = loading.load_objective(folder, "cpu")[0].state_dict()
    assert read_config(begun / "config.json").objective.tokenizer == of_tokenizer.objective
    shown = Console(record=True, file=io.StringIO())
    show(run, shown)
    assert '"size": 32' in shown.export_text(), "the codebook of the tokenizer that was trained"
    saved = names_in(begun / "weights.safetensors"), names_in(begun / "state/000000001/tensors.safetensors")
    assert not [name for names in saved for name in names if "tokenizer" in name]
    assert saved[0] == {"logits"} and "weights/logits" in saved[1]
    written = json.loads((begun / "frozen.json").read_text())["objective.tokenizer_run"]
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert written == [{"path": str(folder), "relative": "../tokenizer", "sha256": digest}]
    objective, _ = loading.load_objective(begun, "cpu")
    assert objective.codebook_size == 32
    assert all(torch.equal(value, weights[name]) for name, value in objective.tokenizer.state_dict().items())


def test_resuming_with_a_part_that_is_kept_elsewhere_is_exact(trained, prior, tmp_path):
    run = prior[0]
    longer = dataclasses.replace(run, train=dataclasses.replace(run.train, length=Steps(3), save_every=1))
    through = experiment.train(longer, tmp_path / "through").objective
    shutil.rmtree(tmp_path / "through" / "state" / "000000003")
    (tmp_path / "through" / "weights.safetensors").unlink()
    resumed = experiment.train(longer, tmp_path / "through").objective
    assert resumed.kept_elsewhere == through.kept_elsewhere == ("tokenizer",)
    assert all(torch.equal(value, through.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert (tmp_path / "through" / "weights.safetensors").exists()


def test_both_folders_can_be_moved_together(prior, tmp_path):
    (tmp_path / "moved").mkdir()
    for name in ("tokenizer", "prior"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert loading.load_objective(tmp_path / "moved/prior", "cpu")[0].codebook_size == 32


def test_a_frozen_part_that_moved_or_changed_is_refused_until_its_place_is_told(trained, prior, tmp_path):
    (_, folder), (run, begun) = trained, prior
    folder.rename(tmp_path / "moved")
    for use in (lambda: loading.load_objective(begun, "cpu"), lambda: experiment.train(run, begun)):
        with pytest.raises(UserError, match=r"objective\.tokenizer_run named .*tokenizer is not there.*frozen\.json"):
            use()
    record = begun / "frozen.json"
    record.write_text(record.read_text().replace(f'"{folder}"', f'"{tmp_path / "moved"}"'))
    loading.load_objective(begun, "cpu")
    experiment.train(run, begun)  # goes on, and is done
    objective, _ = loading.load_objective(tmp_path / "moved", "cpu")
    with torch.no_grad():
        next(objective.parameters()).add_(1)
    RunFolder(tmp_path / "moved").save_weights(objective)
    with pytest.raises(UserError, match=r"SHA-256 [0-9a-f]{12}.*the weights in .*moved have [0-9a-f]{12}"):
        loading.load_objective(begun, "cpu")


def test_a_copy_with_everything_needs_no_other_folder(trained, prior, tmp_path):
    begun = prior[1]
    before = loading.load_objective(begun, "cpu")[0].state_dict()
    copy_whole(begun, tmp_path / "whole")
    assert not (tmp_path / "whole" / "state").exists()
    shutil.rmtree(trained[1])
    shutil.rmtree(begun)
    (tmp_path / "whole").rename(tmp_path / "elsewhere")
    after = loading.load_objective(tmp_path / "elsewhere", "cpu")[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_folder_that_holds_its_tokenizer_itself_still_loads_and_goes_on(trained, config, monkeypatch, tmp_path):
    """Older folders have no ``frozen.json``; those with an untrained tokenizer never do."""
    monkeypatch.setattr("filmstrip.objectives.latent.HistogramConfig", HistogramConfig, raising=False)
    objective = dataclasses.replace(config, untrained_tokenizer=True)
    run = dataclasses.replace(trained[0], objective=objective)
    result = experiment.train(run, tmp_path / "whole")
    assert not (tmp_path / "whole" / "frozen.json").exists()
    assert "tokenizer.bottleneck.codes" in names_in(tmp_path / "whole" / "weights.safetensors")
    again = experiment.train(run, tmp_path / "whole").objective.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in result.objective.state_dict().items())


def test_a_missing_tokenizer_is_named_and_an_untrained_one_has_to_be_asked_for(trained, config, caplog, tmp_path):
    run = dataclasses.replace(trained[0], objective=dataclasses.replace(config, tokenizer_run=str(tmp_path / "none")))
    with pytest.raises(UserError, match="none is not a run folder"):
        tokenizers.with_tokenizer(run)
    run = dataclasses.replace(run, objective=config)
    with pytest.raises(UserError, match=r"--objective\.untrained-tokenizer"):
        tokenizers.start_tokenizer(run.objective.build(), run)
    run = dataclasses.replace(run, objective=dataclasses.replace(config, untrained_tokenizer=True))
    tokenizers.start_tokenizer(run.objective.build(), run)
    assert "untrained" in caplog.text
