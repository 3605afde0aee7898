"""SigLIP and CLIP with the weights of ``transformers``' models: both towers, logits and losses, and back."""

import dataclasses

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.models.dual_encoder import CLIP_PIXELS, SIGLIP_PIXELS, towers_in_hub
from filmstrip.systems.language.clip import CLIPConfig as OurCLIPConfig
from filmstrip.systems.language.siglip import SigLIPConfig
from filmstrip.weights.released import copy_published, to_published

TEXT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 49,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 24,
    "patch_size": 8,
}


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" not in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(params=["siglip", "clip"])
def both(request):
    """Their model, ours with its weights, and the statistics of pixels."""
    torch.manual_seed(0)
    if request.param == "siglip":
        theirs = randomised(SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)))
        with torch.no_grad():
            theirs.logit_scale.fill_(2.3)
            theirs.logit_bias.fill_(-10.0)
        vision, text = towers_in_hub(theirs.config.to_dict(), SIGLIP_PIXELS, "it")
        ours = SigLIPConfig(vision=vision, text=text).build()
        pixels = SIGLIP_PIXELS
    else:
        theirs = randomised(CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)))
        vision, text = towers_in_hub(theirs.config.to_dict(), CLIP_PIXELS, "it")
        ours = OurCLIPConfig(vision=vision, text=text, embed_dim=16, loss="softmax").build()
        pixels = CLIP_PIXELS
    copy_published(theirs.state_dict(), ours, "it")
    return theirs, ours.eval(), pixels


def batch():
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(5, 1, 3, 24, 24, generator=generator)
    ids = torch.randint(2, 49, (5, 8), generator=generator)
    lengths = torch.tensor([8, 5, 3, 6, 2])
    ids[:, 0] = 1
    place = torch.arange(8)
    ids = torch.where(place == lengths[:, None] - 1, 49, ids).where(place < lengths[:, None], 49)
    return {"video": video, "text": ids, "text_length": lengths, "index": torch.arange(5)}


def test_towers_logits_and_loss_are_theirs(both):
    theirs, ours, pixels = both
    given = batch()
    mean, std = (torch.tensor(pixels[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = theirs(input_ids=given["text"], pixel_values=(given["video"][:, 0] - mean) / std, return_loss=True)
        video, text = ours.encode_video(given["video"]), ours.encode_text(given["text"], given["text_length"])
        torch.testing.assert_close(video, expected.image_embeds, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(text, expected.text_embeds, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.similarity(video, text), expected.logits_per_image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(given).total, expected.loss, rtol=1e-4, atol=1e-5)
        tokens = theirs.vision_model((given["video"][:, 0] - mean) / std).last_hidden_state
        features = ours.encoder(given["video"]).tokens
    if features.shape == tokens.shape:  # CLIP's model does not normalise the tokens of patches
        torch.testing.assert_close(features, tokens, rtol=1e-4, atol=1e-5)


def test_our_weights_are_read_back_by_their_model(both):
    theirs, ours, _ = both
    back = to_published(ours)
    state = {name: value for name, value in theirs.state_dict().items() if not name.endswith("position_ids")}
    assert back.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=0, atol=0, msg=name)
    theirs.load_state_dict(back, strict=False)


def test_several_frames_are_the_mean_of_their_vectors(both):
    _, ours, _ = both
    video = torch.rand(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        frames = ours.video_head(ours.encoder(video.flatten(0, 1)[:, None]).pooled()).view(2, 3, -1).mean(dim=1)
        expected = torch.nn.functional.normalize(frames, dim=1)
        torch.testing.assert_close(ours.encode_video(video), expected, rtol=1e-5, atol=1e-6)


def test_padding_changes_a_text_only_where_it_is_read(both):
    _, ours, _ = both
    ids = batch()["text"][2:3]
    with torch.no_grad():
        vectors = [ours.encode_text(torch.where(torch.arange(8) < 3, ids, pad), torch.tensor([3])) for pad in (49, 0)]
    assert torch.allclose(*vectors) == ours.causal_text


def test_a_configuration_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="a blip, and no two-tower model"):
        towers_in_hub({"model_type": "blip"}, {}, "it")
    with pytest.raises(UserError, match="activation 'relu'"):
        towers_in_hub({"model_type": "clip", "text_config": {"hidden_act": "relu"}}, CLIP_PIXELS, "it")


def test_usual_sizes_of_a_short_configuration_are_those_of_the_released_models():
    for kind, address in (("siglip", "language.siglip:b16_224"), ("clip", "language.clip:b32_224")):
        pixels = SIGLIP_PIXELS if kind == "siglip" else CLIP_PIXELS
        vision, text = towers_in_hub({"model_type": kind}, pixels, "it")
        objective = systems.find(address).objective
        assert dataclasses.asdict(vision) == dataclasses.asdict(objective.vision)
        assert dataclasses.asdict(text) == dataclasses.asdict(objective.text)
