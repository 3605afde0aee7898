"""Teachers are named by a run or a model in the Hub's layout, and a run keeps them by reference."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from filmstrip import systems
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.objectives.teachers import ImageTransformerConfig
from filmstrip.runs import experiment
from filmstrip.runs.config import read_config
from filmstrip.runs.encoders import load
from filmstrip.runs.frozen import read_references
from filmstrip.runs.loading import load_objective
from filmstrip.runs.teachers import with_teachers
from filmstrip.train.lengths import Steps

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))


def short(address, **changes):
    """A preset that trains for two steps on a few videos, without evaluations."""
    run = systems.find(address)
    data = replace(run.data, synthetic=Motions(train_per_class=1, test_per_class=1), num_workers=0, batch_size=2)
    loop = replace(run.train, length=Steps(2), save_every=1)
    return replace(
        run, data=data, train=loop, evals=(), objective=replace(run.objective, untrained_teachers=False, **changes)
    )


def mae(folder, **changes):
    """A model of ``transformers`` as MAE's authors' are kept on the Hub, with random weights."""
    sizes = dict(hidden_size=40, num_hidden_layers=2, num_attention_heads=2, intermediate_size=160)
    config = transformers.ViTMAEConfig(
        **sizes, image_size=64, patch_size=8, decoder_hidden_size=24, decoder_num_attention_heads=2, **changes
    )
    config.decoder_num_hidden_layers = 1
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(config)
    model.save_pretrained(folder)
    return model


def names_in(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


@torch.no_grad()
def test_mae_on_the_hub_is_an_image_transformer(tmp_path):
    model = mae(tmp_path / "mae", mask_ratio=0.0)
    encoder = load(tmp_path / "mae", "cpu").encoder
    assert isinstance(with_teachers_of(tmp_path / "mae").image_teacher, ImageTransformerConfig)
    video = torch.rand(1, 1, 3, 64, 64)
    said = model.vit(encoder.embed.normalise(video)[:, 0])
    order = said.ids_restore[0]
    torch.testing.assert_close(encoder(video).tokens[0], said.last_hidden_state[0, 1:][order], atol=1e-5, rtol=1e-4)


def with_teachers_of(folder):
    return with_teachers(short("pretraining.mvd:tiny", image_teacher_run=str(folder))).objective


def test_teachers_are_kept_by_reference_and_only_training_needs_them(tmp_path):
    mae(tmp_path / "mae")
    video = systems.find("pretraining.videomae:tiny")
    video = replace(
        video,
        data=replace(video.data, synthetic=Motions(train_per_class=1, test_per_class=1), num_workers=0, batch_size=2),
        train=replace(video.train, length=Steps(1)),
    )
    teacher = experiment.train(video, tmp_path / "videomae").objective.encoder
    named = {"image_teacher_run": str(tmp_path / "mae"), "video_teacher_run": str(tmp_path / "videomae")}
    run, folder = short("pretraining.mvd:tiny", **named), tmp_path / "mvd"
    result = experiment.train(run, folder)
    own = result.objective.video_teacher.encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in teacher.state_dict().items())
    saved = names_in(folder / "weights.safetensors") | names_in(folder / "state/000000002/tensors.safetensors")
    assert "encoder.norm.weight" in saved and not [name for name in saved if "teacher" in name]
    references = read_references(folder)
    assert set(references) == {"objective.image_teacher_run", "objective.video_teacher_run"}
    assert read_config(folder / "config.json").objective.image_teacher.width == 40
    longer = replace(run, train=replace(run.train, length=Steps(3)))
    resumed = experiment.train(longer, folder).objective.video_teacher.encoder.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in own.items())
    shutil.rmtree(tmp_path / "videomae")
    objective, _ = load_objective(folder, "cpu")
    assert torch.equal(objective.encoder.norm.weight, names_of(folder, "encoder.norm.weight"))
    with pytest.raises(UserError, match=r"objective\.video_teacher_run named .*videomae is not there"):
        experiment.train(replace(run, train=replace(run.train, length=Steps(4))), folder)


def names_of(folder, name):
    with safe_open(folder / "weights.safetensors", "pt") as file:
        return file.get_tensor(name)


def test_without_a_teacher_training_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"image_teacher is untrained.*--objective\.image-teacher-run"):
        experiment.train(short("pretraining.mvd:tiny"), tmp_path / "mvd")


def test_a_teacher_whose_grid_does_not_fit_is_refused_before_anything_is_built(tmp_path):
    mae(tmp_path / "mae")
    config = transformers.ViTMAEConfig.from_pretrained(tmp_path / "mae")
    config.image_size = 32
    config.save_pretrained(tmp_path / "mae")
    run = short("pretraining.mvd:tiny", image_teacher_run=str(tmp_path / "mae"))
    with pytest.raises(UserError, match=r"image_teacher: the teacher \(FrameTransformer\) does not fit the clips"):
        experiment.train(run, tmp_path / "mvd")
    assert not (tmp_path / "mvd" / "config.json").exists()


def test_another_kind_of_model_cannot_teach(tmp_path):
    transformers.ViTConfig(image_size=32).save_pretrained(tmp_path / "vivit")
    (tmp_path / "vivit/config.json").write_text('{"model_type": "vivit"}')
    with pytest.raises(UserError, match="is a vivit: give a videomae, vit or vit_mae, or a run folder"):
        with_teachers_of(tmp_path / "vivit")


def test_frozen_encoders_are_kept_by_reference_and_using_the_run_needs_them(tmp_path):
    own = systems.find("recognition.internvideo:tiny").objective
    for name, address in (("masked", "pretraining.videomae:tiny"), ("language", "recognition.uniformer_v2:tiny")):
        run = systems.find(address)
        data = replace(run.data, synthetic=Motions(train_per_class=1, test_per_class=1), num_workers=0, batch_size=2)
        loop = replace(run.train, length=Steps(1))
        objective = run.objective if name == "masked" else own.language
        experiment.train(replace(run, data=data, objective=objective, train=loop, evals=()), tmp_path / name)
    run, folder = systems.find("recognition.internvideo:tiny"), tmp_path / "internvideo"
    named = {f"{name}_run": str(tmp_path / name) for name in ("masked", "language")}
    objective = replace(run.objective, **named, untrained_encoders=False)
    run = replace(run, data=data, objective=objective, train=loop, evals=())
    encoder = experiment.train(run, folder).objective.encoder
    saved = names_in(folder / "weights.safetensors")
    assert saved and not [name for name in saved if ".masked." in name or ".language." in name]
    loaded = load_objective(folder, "cpu")[0].encoder.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in encoder.state_dict().items())
    shutil.rmtree(tmp_path / "language")
    with pytest.raises(UserError, match=r"objective\.language_run named .*language is not there"):
        load_objective(folder, "cpu")
    alone = replace(run, objective=replace(run.objective, language_run=None))
    with pytest.raises(UserError, match=r"the encoder language is untrained.*--objective\.untrained-encoders"):
        experiment.train(alone, tmp_path / "alone")
