"""V-JEPA 2 (``pretraining.vjepa``) and ``VJEPA2Model`` of ``transformers``, with random tiny weights."""

import pytest
import torch
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.vjepa import VJEPAConfig
from filmstrip.weights.released import from_published, to_published

# Heads of 20 and 14 channels: 6 and 4 an axis, so that 2 of each head are not turned.
CONFIG = VJEPAConfig(
    width=60,
    depth=3,
    num_heads=3,
    mlp_ratio=2.5,
    num_frames=4,
    size=32,
    patch_size=(2, 8, 8),
    predictor_width=28,
    predictor_depth=2,
    predictor_num_heads=2,
    num_mask_tokens=3,
)
SIZES = dict(
    hidden_size=60,
    num_hidden_layers=3,
    num_attention_heads=3,
    mlp_ratio=2.5,
    frames_per_clip=4,
    crop_size=32,
    patch_size=8,
    tubelet_size=2,
    pred_hidden_size=28,
    pred_num_hidden_layers=2,
    pred_num_attention_heads=2,
    pred_num_mask_tokens=3,
)


@pytest.fixture
def theirs():
    """Weights large enough that every part matters."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.VJEPA2Model(transformers.VJEPA2Config(**SIZES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ours(theirs):
    objective = CONFIG.build()
    missing, unexpected = objective.load_state_dict(from_published(theirs.state_dict(), objective), strict=False)
    assert not unexpected and all("normalise" in name for name in missing), (missing, unexpected)
    return objective.eval()


@pytest.fixture
def parts():
    """Visible and masked positions of 32, not in order, and not all of them."""
    order = torch.stack([torch.randperm(32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    return order[:, :11], order[:, 11:28]


@torch.no_grad()
def test_every_layer_of_the_encoder_agrees(ours, theirs, video, pixels, assert_close):
    said = theirs(pixels, skip_predictor=True, output_hidden_states=True)
    for encoder in (ours.student, ours.teacher):
        features = encoder(video, layers=True)
        assert len(features.layers) == 3
        for layer, hidden in zip(features.layers, said.hidden_states[1:]):
            assert_close(layer, hidden)
        assert_close(features.tokens, said.last_hidden_state)


@torch.no_grad()
def test_predictions_agree(ours, theirs, video, pixels, parts, assert_close):
    visible, masked = parts
    said = theirs(pixels, context_mask=[visible], target_mask=[masked])
    context = torch.stack([tokens[index] for tokens, index in zip(ours.student(video).tokens, visible)])
    # That model always uses the second mask token.
    assert_close(
        ours.predictor(context, ours.student.grid, visible, masked, 1), said.predictor_output.last_hidden_state
    )


@torch.no_grad()
def test_a_student_that_sees_a_part_agrees(ours, theirs, video, pixels, parts, assert_close):
    """Their model drops positions only after the encoder; its layers take those that are left, with their indices."""
    visible, _ = parts
    hidden = theirs.encoder.embeddings(pixels)
    hidden = torch.stack([tokens[index] for tokens, index in zip(hidden, visible)])
    for layer in theirs.encoder.layer:
        hidden = layer(hidden, visible)[0]
    assert_close(ours.student(video, visible=visible).tokens, theirs.encoder.layernorm(hidden))


def test_gradients_agree(ours, theirs, video, pixels, parts, assert_close):
    visible, masked = parts
    said = theirs(pixels, context_mask=[visible], target_mask=[masked])
    said.predictor_output.last_hidden_state.abs().mean().backward()
    context = torch.stack([tokens[index] for tokens, index in zip(ours.student(video).tokens, visible)])
    ours.predictor(context, ours.student.grid, visible, masked, 1).abs().mean().backward()
    pairs = [
        (ours.student.blocks[0].mlp.fc1.weight, theirs.encoder.layer[0].mlp.fc1.weight),
        (ours.student.blocks[1].attention.out.weight, theirs.encoder.layer[1].attention.proj.weight),
        (ours.student.embed.proj.bias, theirs.encoder.embeddings.patch_embeddings.proj.bias),
        (ours.predictor.blocks[0].norm1.weight, theirs.predictor.layer[0].norm1.weight),
    ]
    for here, there in pairs:
        assert_close(here.grad, there.grad, tolerance=1e-4)
    queries = ours.student.blocks[0].attention.qkv.weight.grad[:60]
    assert_close(queries, theirs.encoder.layer[0].attention.query.weight.grad, tolerance=1e-4)
    token = theirs.predictor.embeddings.mask_tokens.grad[1]
    assert_close(ours.predictor.mask_tokens[1].grad, token, tolerance=1e-4)


def test_weights_survive_the_way_there_and_back(ours, theirs):
    back, state = to_published(ours, "transformers"), theirs.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@torch.no_grad()
def test_ours_runs_in_theirs(theirs, video, pixels, parts, assert_close):
    torch.manual_seed(5)
    ours, (visible, masked) = CONFIG.build().eval(), parts
    theirs.load_state_dict(to_published(ours, "transformers"))
    said = theirs(pixels, context_mask=[visible], target_mask=[masked])
    assert_close(ours.student(video).tokens, said.last_hidden_state)


@pytest.mark.parametrize("shape", ["folder", "file", "classifier"])
def test_a_model_of_the_hub_starts_student_teacher_and_predictor(theirs, ours, shape, tmp_path):
    state, folder = theirs.state_dict(), tmp_path / "hub"
    theirs.save_pretrained(folder)
    source = folder if shape == "folder" else folder / "model.safetensors"
    if shape == "classifier":
        inner = {f"vjepa2.{name}": tensor for name, tensor in state.items()}
        save_file({**inner, "classifier.weight": torch.ones(2, 60), "pooler.query_tokens": torch.ones(1)}, source)
    objective = CONFIG.build()
    start(objective, source)
    wanted = ours.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in objective.state_dict().items())


def test_weights_that_do_not_fit_are_refused_by_name(theirs, tmp_path):
    state, file = theirs.state_dict(), tmp_path / "model.safetensors"
    objective = CONFIG.build()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    cases = [
        (
            {n: t for n, t in state.items() if n != "predictor.layer.1.norm2.bias"},
            r"lacks predictor.layer.1.norm2.bias",
        ),
        (state | {"encoder.layer.3.norm1.bias": torch.ones(60)}, r"no place for: .*encoder.layer.3.norm1.bias"),
        (
            {n: t for n, t in state.items() if "layer.1.attention.key.weight" not in n},
            r"lacks .*attention.key.weight",
        ),
        (state | {"encoder.layernorm.bias": torch.ones(61)}, r"norm.bias is \(61,\) there and \(60,\) here"),
        (
            state | {"predictor.embeddings.mask_tokens": torch.ones(2, 1, 1, 28)},
            r"lacks predictor.embeddings.mask_tokens.2",
        ),
    ]
    for given, message in cases:
        save_file(given, file)
        with pytest.raises(UserError, match=rf"model\.safetensors.*{message}"):
            start(objective, file)
        assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
