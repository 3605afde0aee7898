"""MVD (``pretraining.mvd``) and the published code: student, decoders, teachers and losses, by stored outputs."""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.nn.positions import sincos
from filmstrip.objectives.teachers import ImageTransformerConfig, VideoTransformerConfig
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.mvd import MVDConfig
from filmstrip.systems.recognition.vit import ViTConfig
from filmstrip.weights.released import from_published, published_names, to_published

SIZES = dict(depth=2, size=32)
STUDENT = dict(width=48, num_heads=4, num_frames=8, patch_size=(2, 8, 8), positions="axes")
CONFIG = MVDConfig(
    **SIZES,
    **STUDENT,
    decoder_width=32,
    decoder_depth=2,
    decoder_num_heads=2,
    mask_ratio=0.75,
    image_teacher=ImageTransformerConfig(**SIZES, width=40, num_heads=2, num_frames=1, patch_size=8),
    video_teacher=VideoTransformerConfig(**SIZES, width=56, num_heads=4, num_frames=8, patch_size=(2, 8, 8)),
)


def part(weights, name):
    """The weights of a teacher, or of the student."""
    own = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
    return own if name else {k: v for k, v in own.items() if not k.startswith(("image.", "video."))}


def image_positions(width, side):
    """Those of MAE: a zero for the class token, then halves for columns and rows, sines before cosines."""
    place = torch.arange(side)
    halves = [table for table in (sincos(place, width // 2),) for _ in range(2)]
    columns, rows = (torch.cat([half[:, 0::2], half[:, 1::2]], dim=1) for half in halves)
    grid = torch.cat([columns.repeat(side, 1), rows.repeat_interleave(side, dim=0)], dim=1)
    return torch.cat([torch.zeros(1, width), grid])


def load_teachers(objective, weights):
    video = {f"encoder.{name}": value for name, value in part(weights, "video.encoder.").items()}
    encoder = objective.video_teacher.encoder
    wrapped = torch.nn.Module()
    wrapped.encoder = encoder
    names = {"embed.proj.weight": "patch_embed.proj.weight", "embed.proj.bias": "patch_embed.proj.bias"}
    state = encoder.state_dict()
    for name in state:
        if "normalise" in name:
            continue
        theirs = names.get(name, name.replace(".attention.out.", ".attn.proj.").replace(".attention.", ".attn."))
        tensor = video[f"encoder.{theirs}"]
        state[name] = as_linear(tensor) if tensor.ndim == 5 else tensor
    encoder.load_state_dict(state)
    image = part(weights, "image.")
    state = objective.image_teacher.encoder.state_dict()
    for name in state:
        if "normalise" in name:
            continue
        if name == "pos_embed":
            state[name] = image_positions(40, 4)
            continue
        theirs = names.get(name, name.replace(".attention.out.", ".attn.proj.").replace(".attention.", ".attn."))
        tensor = image[theirs]
        state[name] = as_linear(tensor[:, :, None]) if tensor.ndim == 4 else tensor.reshape(state[name].shape)
    objective.image_teacher.encoder.load_state_dict(state)


def as_linear(kernel):
    return kernel.permute(0, 2, 3, 4, 1).flatten(1)


def positions():
    masked = torch.arange(64) % 4 != 0
    return (~masked).nonzero()[:, 0].expand(2, -1), masked.nonzero()[:, 0].expand(2, -1)


@torch.no_grad()
def test_predictions_targets_and_losses_are_the_published_ones():
    kept, objective = stored("mvd"), CONFIG.build().eval()
    weights = kept.weights()
    objective.load_state_dict(from_published(part(weights, ""), objective), strict=False)
    load_teachers(objective, weights)
    assert kept.error("image_positions", objective.image_teacher.encoder.pos_embed[None]) < TOLERANCE
    video, (visible, masked) = recipe_video("video", (2, 8, 3, 32, 32)), positions()
    encoded = objective.encoder(video, visible=visible).tokens
    for prediction in objective.predictions:
        name = prediction.name
        assert kept.error(name, prediction.decoder(encoded, visible, masked)) < TOLERANCE
        assert kept.error(f"{name}_target", prediction.target.features(video)) < TOLERANCE
    for name, loss in objective.losses(video, visible, masked).items():
        assert kept.error(f"loss_{name}", loss) < TOLERANCE
    student = {name: module for name, module in objective.named_children() if "teacher" not in name}
    assert not kept.other_eps(torch.nn.ModuleDict(student), published_names(objective, "mvd"))


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, objective, file = part(stored("mvd").weights(), ""), CONFIG.build(), tmp_path / "checkpoint.pth"
    teacher = objective.image_teacher.encoder.norm.weight.clone()
    fixed = {f"pos_embed{part}": torch.ones(1, 64, 32) for part in ("", "_img", "_vid")}
    torch.save({"model": weights | fixed}, file)
    start(objective, file)
    back = to_published(objective, "mvd")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor.reshape(back[name].shape)) for name, tensor in weights.items())
    assert torch.equal(objective.image_teacher.encoder.norm.weight, teacher)
    del weights["decoder_vid.norm.bias"]
    torch.save({"model": weights}, file)
    with pytest.raises(UserError, match=r"decoder_vid\.norm\.bias"):
        start(CONFIG.build(), file)


@torch.no_grad()
def test_released_weights_start_a_classifier(tmp_path):
    weights, file = part(stored("mvd").weights(), ""), tmp_path / "checkpoint.pth"
    fixed = {"pos_embed": torch.ones(1, 64, 48), "pos_embed_img": torch.ones(1, 64, 32)}
    torch.save({"model": weights | fixed}, file)
    classifier = ViTConfig(**SIZES, **STUDENT, num_classes=5).build()
    start(classifier, file)
    student = CONFIG.build()
    student.load_state_dict(from_published(weights, student), strict=False)
    student.encoder.norm = torch.nn.Identity()
    video = recipe_video("video", (2, 8, 3, 32, 32))
    assert torch.equal(classifier.eval().encoder(video).tokens, student.eval().encoder(video).tokens)


def test_one_teacher_alone_starts_from_the_same_file(tmp_path):
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": part(stored("mvd").weights(), "")}, file)
    objective = replace(CONFIG, teachers="video", regress_pixels=True).build()
    start(objective, file)
    assert torch.equal(objective.video_decoder.norm.bias, stored("mvd").weights()["decoder_vid.norm.bias"])
