import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.raft import RAFT, SMALL
from filmstrip.runs import experiment
from filmstrip.runs.frozen import copy_whole, fingerprint_of, read_references
from filmstrip.runs.loading import load_objective
from filmstrip.train.lengths import Steps
from filmstrip.weights.released import to_published


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))


def short(address, **changes):
    """A preset that trains for two steps on a few videos, without evaluations."""
    run = systems.find(address)
    data = replace(run.data, synthetic=Motions(train_per_class=1, test_per_class=1), num_workers=0, batch_size=2)
    loop = replace(run.train, length=Steps(2), save_every=1)
    return replace(run, data=data, train=loop, evals=(), **changes)


def names_in(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def alexnet(folder):
    """LPIPS on AlexNet under its published names, with random values."""
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    weights = {}
    for i, (number, (width, inputs, kernel)) in enumerate(shapes.items()):
        weights[f"features.{number}.weight"] = torch.randn(width, inputs, kernel, kernel) / 50
        weights[f"features.{number}.bias"] = torch.zeros(width)
        weights[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1)
    folder.mkdir()
    save_file(weights, folder / "lpips.safetensors")
    return folder / "lpips.safetensors"


@pytest.fixture
def with_lpips(tmp_path):
    file = alexnet(tmp_path / "downloads")
    run = short("tokenizers.vqgan:tiny")
    run = replace(run, objective=replace(run.objective, perceptual=(file,), start=0))
    return file, run, experiment.train(run, tmp_path / "vqgan")


def test_a_perceptual_network_is_no_part_of_the_run_and_only_training_needs_it(with_lpips, tmp_path):
    file, run, result = with_lpips
    folder = tmp_path / "vqgan"
    saved = names_in(folder / "weights.safetensors") | names_in(folder / "state/000000002/tensors.safetensors")
    assert "discriminator.0.weight" in saved and not [name for name in saved if "perceptual" in name]
    assert same(load_objective(folder, "cpu")[0], result.objective)
    shutil.rmtree(file.parent)
    objective, _ = load_objective(folder, "cpu")
    video = torch.rand(1, 2, 3, 32, 32)
    with torch.no_grad():
        ids = objective.encode(video).ids
        assert torch.equal(ids, result.objective.encode(video).ids)
    with pytest.raises(UserError, match=r"lpips\.safetensors, which is not there"):
        objective({"video": video})
    with pytest.raises(UserError, match=r"objective\.perceptual named .*lpips\.safetensors is not there"):
        experiment.train(run, folder)
    copy_whole(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "frozen").exists(), "whoever uses the tokenizer does without"


def test_a_perceptual_network_of_other_weights_stops_a_run_that_goes_on(with_lpips, tmp_path):
    file, run, _ = with_lpips
    shutil.rmtree(file.parent)
    alexnet(file.parent)
    with pytest.raises(UserError, match=r"the weights in .*lpips\.safetensors have [0-9a-f]{12}"):
        experiment.train(run, tmp_path / "vqgan")


def test_a_missing_file_is_told_before_anything_is_written(tmp_path):
    run = short("tokenizers.vqgan:tiny")
    run = replace(run, objective=replace(run.objective, perceptual=(tmp_path / "none.safetensors",)))
    with pytest.raises(UserError, match=r"objective\.perceptual names .*none\.safetensors, which is not there"):
        experiment.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_frozen_encoder_is_kept_where_init_says_and_a_chain_of_runs_with_it(tmp_path):
    experiment.train(short("recognition.lrcn:tiny"), tmp_path / "learnt")
    run = short("recognition.lrcn:tiny", init=str(tmp_path / "learnt"))
    run = replace(run, objective=replace(run.objective, frozen=True))
    result = experiment.train(run, tmp_path / "frozen")
    assert not [name for name in names_in(tmp_path / "frozen/weights.safetensors") if name.startswith("encoder.")]
    assert same(load_objective(tmp_path / "frozen", "cpu")[0], result.objective)
    shutil.rmtree(tmp_path / "frozen/state/000000002")
    assert same(experiment.train(run, tmp_path / "frozen").objective, result.objective)
    # A third run begins from the second, whose fingerprint stands for the first's weights too.
    third = experiment.train(replace(run, init=str(tmp_path / "frozen")), tmp_path / "third")
    assert same(load_objective(tmp_path / "third", "cpu")[0].encoder, result.objective.encoder)
    copy_whole(tmp_path / "third", tmp_path / "copy")
    for name in ("learnt", "frozen", "third"):
        shutil.rmtree(tmp_path / name)
    assert same(load_objective(tmp_path / "copy", "cpu")[0], third.objective)


def test_a_frozen_network_of_the_hub_is_kept_there(tmp_path):
    transformers = pytest.importorskip("transformers")
    run = short("recognition.vivit:tiny_frozen")
    network = run.objective
    hub = tmp_path / "hub" / "vit"
    sizes = {
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.num_heads,
    }
    config = transformers.ViTConfig(
        image_size=network.size, patch_size=network.patch_size[1], intermediate_size=4 * network.width, **sizes
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(hub, max_shard_size="20KB")
    assert len(list(hub.glob("model-*.safetensors"))) > 1, "in shards, with a list of them"
    result = experiment.train(replace(run, init=str(hub)), tmp_path / "run")
    saved = names_in(tmp_path / "run/weights.safetensors") | names_in(
        tmp_path / "run/state/000000002/tensors.safetensors"
    )
    assert not [name for name in saved if "encoder.frames." in name]
    (place,) = read_references(tmp_path / "run")["init"]
    assert (place.path, place.relative, place.sha256) == (str(hub), "../hub/vit", fingerprint_of(str(hub)))
    assert same(load_objective(tmp_path / "run", "cpu")[0], result.objective)
    copy_whole(tmp_path / "run", tmp_path / "copy")
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(hub)
    with pytest.raises(UserError, match=r"init named .*the weights in .*vit have [0-9a-f]{12}"):
        load_objective(tmp_path / "run", "cpu")
    assert same(load_objective(tmp_path / "copy", "cpu")[0], result.objective)


def test_an_estimator_of_flow_is_no_part_of_the_run_and_using_it_needs_it(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "raft_small.safetensors"
    save_file(to_published(RAFT(SMALL)), file)
    run = short("recognition.two_stream:tiny")
    run = replace(run, objective=replace(run.objective, flow="raft", flow_weights=str(file)))
    result = experiment.train(run, tmp_path / "run")
    saved = names_in(tmp_path / "run" / "weights.safetensors")
    assert "svm.weight" in saved and not [name for name in saved if "flow_estimator" in name]
    loaded, _ = load_objective(tmp_path / "run", "cpu")
    assert same(loaded, result.objective)
    copy_whole(tmp_path / "run", tmp_path / "copy")
    save_file(to_published(RAFT(SMALL)), file)
    with pytest.raises(UserError, match=r"the weights in .*raft_small\.safetensors have [0-9a-f]{12}"):
        load_objective(tmp_path / "run", "cpu")
    file.unlink()
    with pytest.raises(UserError, match=r"objective\.flow_weights named .*raft_small\.safetensors is not there"):
        load_objective(tmp_path / "run", "cpu")
    assert same(load_objective(tmp_path / "copy", "cpu")[0], loaded)
