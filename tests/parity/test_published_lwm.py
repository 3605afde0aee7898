"""LWM against the authors' code, through the key map of its checkpoints.

Repository LargeWorldModel/LWM, commit f45d2b7 (JAX 0.10, flax 0.12, ``jnp.clip`` with the old names of its
arguments): ``FlaxVideoLLaMAForCausalLMModule`` of ``vision_llama.py`` with vocab_size 40, vision_vocab_size 24,
hidden_size 32, intermediate_size 48, 2 layers, 4 heads, max_sequence_length 64, rms_norm_eps 1e-5, theta 5e7, and
nothing scanned. Of ``tux`` a mesh of one device was given; in the place of ``ringattention_inference``, which the
package of that name has no more, softmax attention under the mask that it is handed. Names are those of the flat
``params``. ``vision`` and ``text`` are the logits of the streams below; ``packed_`` ones are with ``segment_ids`` and
``position_ids``; the losses are those of ``train.py``, with its helper's mean within a row and then over rows.
"""

import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.models.decoder import DecoderConfig
from filmstrip.nn.masks import causal, document
from filmstrip.objectives.codebook import Codebook
from filmstrip.systems.language.lwm import LWMConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig

STORED = stored("lwm")
AT = torch.arange(24)
VISION = torch.stack([(AT >= 5) & (AT < 15), ((AT >= 2) & (AT < 8)) | (AT >= 20)])
RAW = recipe_video("ids", (2, 24)).long()
IDS = torch.where(VISION, 40 + RAW % 24, RAW % 40)
SEGMENTS = torch.stack([(AT >= 9).long(), (AT >= 16).long()]) + 1
POSITIONS = torch.stack([torch.where(AT >= 9, AT - 9, AT), torch.where(AT >= 16, AT - 16, AT)])


def ours():
    config = LWMConfig(
        tokenizer=VQGANConfig.small(codebook=Codebook(kind="learnt", size=22, dim=8)),
        num_frames=1,
        size=8,
        vision_vocab_size=24,
        decoder=DecoderConfig(
            vocab_size=40, width=32, depth=2, num_heads=4, mlp_dim=48, norm_eps=1e-5, rope_base=5e7
        ),
        begin=(1,),
        end=(2,),
    )
    model = config.build().eval()
    weights = model.from_published(STORED.weights())
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown and not [name for name in missing if not name.startswith("tokenizer.")]
    return model


@torch.no_grad()
def test_logits_of_both_heads():
    model = ours()
    logits = model.decoder.logits(model.decoder(IDS).hidden)
    assert STORED.error("text", logits[..., :40]) < TOLERANCE
    assert STORED.error("vision", logits[..., 40:]) < TOLERANCE


@torch.no_grad()
def test_examples_that_share_a_row():
    model = ours()
    hidden = model.decoder(IDS, mask=causal() & document(SEGMENTS), positions=POSITIONS).hidden
    logits = model.decoder.logits(hidden)
    assert STORED.error("packed_text", logits[..., :40]) < TOLERANCE
    assert STORED.error("packed_vision", logits[..., 40:]) < TOLERANCE
    assert STORED.error("packed_text", model.decoder.logits(model.decoder(IDS).hidden)[..., :40]) > 1e-3


@torch.no_grad()
def test_halves_of_the_loss():
    model = ours()
    length = torch.full((2,), 24)
    loss = model({"text": IDS, "text_length": length, "learnt": torch.ones_like(IDS, dtype=torch.bool)})
    for name in ("text", "vision"):
        assert STORED.error(f"loss_{name}", loss.metrics[name]) < TOLERANCE
    assert torch.isclose(loss.total, (loss.metrics["text"] + loss.metrics["vision"]) / 2)


@torch.no_grad()
def test_stacked_layers_are_read_too():
    flat = STORED.weights()
    layers = [name for name in flat if name.startswith("transformer/h/0/")]
    stacked = {name: value for name, value in flat.items() if not name.startswith("transformer/h/")}
    for name in layers:
        rest = name.removeprefix("transformer/h/0/")
        parts = [flat[f"transformer/h/{i}/{rest}"] for i in range(2)]
        stacked[f"params/transformer/h/scan_decoder/{rest}"] = torch.stack(parts)
    model = ours()
    again = model.from_published(stacked)
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in again.items())
