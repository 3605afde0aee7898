import pytest
import torch

from filmstrip.models.in_transformers import VIDEOMAE
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.nn.tubelet_masking import choose_tubelets
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.initial_weights import start
from filmstrip.systems import find
from filmstrip.systems.pretraining.videomae import IN_TRANSFORMERS, VideoMAEConfig
from run_folders import save_run

PATCH = (2, 8, 8)
NETWORK = dict(width=48, depth=3, num_heads=4, num_frames=4, size=32, patch_size=PATCH)
# The published code pads all its layer norms by 1e-6, and so do ours; transformers pads those of the blocks and of
# the encoder's end by 1e-12 unless a config.json says otherwise, those before its two heads always by 1e-5.
EPS, HEAD_EPS = 1e-12, 1e-5


def encoder(final_norm):
    return ViT(ViTArchitecture(**NETWORK, mlp_ratio=2.0, norm_eps=EPS), final_norm=final_norm)


def pretraining():
    config = VideoMAEConfig(**NETWORK, decoder_width=24, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.75)
    objective = config.build()
    for module in objective.modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6
            module.eps = HEAD_EPS if module is objective.decoder.norm else EPS
    return objective


def classifier():
    return Classification(encoder(False), ClassificationConfig(num_classes=7), norm=True, norm_eps=HEAD_EPS)


def load(module, weights):
    """Load into ours; only the pixel statistics, which the other library keeps elsewhere, may be missing."""
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("normalise" in name for name in missing), missing
    return module.eval()


def boolean(hidden, places):
    return torch.zeros(len(hidden), places, dtype=torch.bool).scatter_(1, hidden, True)


@pytest.mark.parametrize("final_norm", [True, False])
def test_encoder_tokens_agree(reference, video, pixels, assert_close, final_norm):
    theirs = reference("VideoMAEModel", use_mean_pooling=not final_norm)
    ours = load(encoder(final_norm), VIDEOMAE.encoder_from(theirs.state_dict()))
    with torch.no_grad():
        assert_close(ours(video).tokens, theirs(pixels).last_hidden_state)


@pytest.mark.parametrize("masking", ["tube", "random"])
def test_pretraining_logits_loss_and_gradients_agree(reference, video, pixels, assert_close, masking):
    # The published pretraining models end their encoder in a norm.
    theirs = reference("VideoMAEForPreTraining", use_mean_pooling=False, intermediate_size=192)
    ours = load(pretraining(), VIDEOMAE.ours(theirs.state_dict(), IN_TRANSFORMERS))
    visible, hidden = choose_tubelets(torch.tensor([3, 4]), ours.encoder.grid, masking, 0.75, use="test")
    output = theirs(pixels, bool_masked_pos=boolean(hidden, 32))
    assert_close(ours.predict_masked(video, visible, hidden), output.logits)
    loss = ours.loss(video, visible, hidden)
    assert_close(loss, output.loss)
    loss.backward()
    output.loss.backward()
    ours_grad = ours.encoder.blocks[0].mlp.fc1.weight.grad
    assert_close(ours_grad, theirs.videomae.encoder.layer[0].intermediate.dense.weight.grad, tolerance=1e-4)


def test_classification_logits_agree(reference, video, pixels, assert_close):
    theirs = reference("VideoMAEForVideoClassification", num_labels=7)
    ours = load(classifier(), VIDEOMAE.ours(theirs.state_dict(), VIDEOMAE.classifier))
    with torch.no_grad():
        assert_close(ours.classify(video), theirs(pixels).logits)


@pytest.mark.parametrize(
    ("name", "keys", "changes"),
    [
        ("VideoMAEModel", VIDEOMAE.encoder, {}),
        ("VideoMAEForPreTraining", IN_TRANSFORMERS, {"use_mean_pooling": False}),
        ("VideoMAEForVideoClassification", VIDEOMAE.classifier, {}),
    ],
)
def test_weights_survive_the_way_there_and_back(reference, name, keys, changes):
    theirs = reference(name, **changes).state_dict()
    back = VIDEOMAE.theirs(VIDEOMAE.ours(theirs, keys), keys, PATCH)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_ours_runs_in_theirs(reference, video, pixels, assert_close):
    torch.manual_seed(5)
    ours = classifier().eval()
    theirs = reference("VideoMAEForVideoClassification", num_labels=7)
    theirs.load_state_dict(ours.to_transformers()[1])
    with torch.no_grad():
        assert_close(ours.classify(video), theirs(pixels).logits)


def test_our_pretraining_runs_in_theirs(reference, video, pixels, assert_close):
    torch.manual_seed(6)
    ours = pretraining().eval()
    theirs = reference("VideoMAEForPreTraining", use_mean_pooling=False, intermediate_size=192)
    theirs.load_state_dict(ours.to_transformers()[1])
    visible, hidden = choose_tubelets(torch.tensor([1, 2]), ours.encoder.grid, "tube", 0.75, use="test")
    with torch.no_grad():
        output = theirs(pixels, bool_masked_pos=boolean(hidden, 32))
        assert_close(ours.loss(video, visible, hidden), output.loss)
        assert_close(ours.predict_masked(video, visible, hidden), output.logits)


def test_older_spelling_of_the_biases_loads(reference):
    theirs = reference("VideoMAEModel").state_dict()
    older = {name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): t for name, t in theirs.items()}
    assert older.keys() != theirs.keys()
    ours, again = VIDEOMAE.encoder_from(theirs), VIDEOMAE.encoder_from(older)
    assert ours.keys() == again.keys() and all(torch.equal(ours[k], again[k]) for k in ours)


def test_pretraining_goes_on_from_a_released_model_with_its_decoder(reference, tmp_path):
    theirs = reference("VideoMAEForPreTraining", use_mean_pooling=False, intermediate_size=192)
    theirs.save_pretrained(tmp_path)
    ours = pretraining()
    start(ours, tmp_path)
    expected = VIDEOMAE.ours(theirs.state_dict(), IN_TRANSFORMERS)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in expected.items())
    bare = reference("VideoMAEModel", use_mean_pooling=False, intermediate_size=192)
    bare.save_pretrained(tmp_path)
    fresh = pretraining()
    before = {name: value.clone() for name, value in fresh.decoder.state_dict().items()}
    start(fresh, tmp_path)  # a bare encoder leaves the decoder as it is
    assert all(torch.equal(value, before[name]) for name, value in fresh.decoder.state_dict().items())
    assert torch.equal(fresh.encoder.norm.weight, bare.layernorm.weight)


def test_pretraining_goes_on_from_a_run_with_its_decoder(tmp_path):
    given, _ = save_run(tmp_path / "run", "pretraining.videomae:tiny")
    ours = find("pretraining.videomae:tiny").objective.build()
    start(ours, tmp_path / "run")
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in given.state_dict().items())
