"""InternVideo2's third stage against transformers' Q-Former and Mistral, put together as the authors do.

The encoder is held against the authors' own code elsewhere (``test_published_internvideo2.py``).
"""

from dataclasses import replace

import pytest
import torch
from blip import randomise

from filmstrip import systems
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import from_llama, to_peft
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import BLIP2, QueryTransformerConfig, fused
from filmstrip.nn.lora import is_adaptation
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.language import Adaptation
from filmstrip.systems.language.internvideo2_chat import ATTENTION

transformers = pytest.importorskip("transformers")

PLACE, VOCAB, QUERIES, RANK, ALPHA = 38, 40, 5, 3, 6.0
MISTRAL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 8,
    "rms_norm_eps": 1e-5,
}


class Published:
    """Their networks: queries that read a clip's tokens, a linear layer, and Mistral with its adaptation added."""

    def __init__(self, width):
        self.queries = randomise(
            transformers.Blip2QFormerModel(
                transformers.Blip2QFormerConfig(
                    hidden_size=24,
                    num_hidden_layers=3,
                    num_attention_heads=4,
                    intermediate_size=40,
                    encoder_hidden_size=width,
                    cross_attention_frequency=1,
                )
            )
        )
        self.speaks = randomise(transformers.MistralForCausalLM(transformers.MistralConfig(**MISTRAL)))

    def adapt(self, weights):
        """Add the products of an adaptation's matrices, named as ``peft`` does, to the weights of its layers."""
        layers = dict(self.speaks.named_modules())
        for name, low in weights.items():
            if ".lora_A." in name:
                high = weights[name.replace(".lora_A.", ".lora_B.")]
                layer = layers[name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")]
                layer.weight.data += ALPHA / RANK * high @ low


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "crops"])
def models(request):
    torch.manual_seed(0)
    objective = systems.find("language.internvideo2_chat").objective
    queries = QueryTransformerConfig(num_queries=QUERIES, width=24, depth=3, num_heads=4, mlp_dim=40)
    decoder = DecoderConfig(
        vocab_size=VOCAB,
        width=32,
        depth=2,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=48,
        norm_eps=1e-5,
        window=8,
    )
    ours = replace(
        objective,
        connector=QueryConnectorConfig(queries=queries),
        decoder=decoder,
        trains=("connector",),
        adaptation=Adaptation(rank=RANK, alpha=ALPHA, layers=ATTENTION),
        placeholders=(PLACE,),
        crops=request.param,
    ).build()
    theirs = Published(ours.encoder.width)
    reader = ours.connector.reader
    loaded = reader.bridge.load_state_dict(BLIP2.ours(fused(theirs.queries.state_dict())), strict=False)
    assert loaded.missing_keys == ["queries"] and not loaded.unexpected_keys
    loaded = ours.decoder.load_state_dict(from_llama(theirs.speaks.state_dict(), decoder), strict=False)
    assert all(is_adaptation(name) for name in loaded.missing_keys) and not loaded.unexpected_keys
    fresh = [p for name, p in ours.named_parameters() if is_adaptation(name)]
    assert fresh
    for parameter in [*fresh, *ours.connector.project.parameters(), *reader.visual_norm.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    config, weights = to_peft(ours.decoder)
    assert (config["r"], config["lora_alpha"]) == (RANK, ALPHA)
    assert len(weights) == 2 * 2 * len(ATTENTION), "two matrices of each adapted layer of both blocks"
    theirs.adapt(weights)
    return ours.eval(), theirs


@pytest.fixture
def batch(models):
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, 30, (2, 7), generator=generator)
    text[:, 1] = PLACE
    side = 16 * models[0].crops
    video = torch.randint(0, 256, (2, 4, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"text": text, "text_length": torch.tensor([7, 7]), "video": video}


def embedded(ours, theirs, batch):
    """What their language model reads: the text, with what its queries make of each crop, then of the whole."""
    crops, clips = ours.crops, batch["video"]
    shown = [clips]
    if crops > 1:
        shown = [part for row in clips.split(16, dim=3) for part in row.split(16, dim=4)]
        shown.append(torch.nn.functional.avg_pool2d(clips.float().flatten(0, 1), 2).unflatten(0, (2, 4)) / 255)
    seen = []
    for part in shown:
        found = ours.encoder(part)
        tokens = found.tokens
        if found.summary is not None and found.summary.shape[1] == found.grid.t:
            tokens = torch.cat([found.summary[:, :, None], tokens.unflatten(1, (found.grid.t, -1))], 2).flatten(1, 2)
        queries = ours.connector.reader.bridge.queries.expand(2, -1, -1)
        read = theirs.queries(queries, encoder_hidden_states=ours.connector.reader.visual_norm(tokens))
        seen.append(ours.connector.project(read.last_hidden_state))
    words = theirs.speaks.get_input_embeddings()(batch["text"].masked_fill(batch["text"] == PLACE, 0))
    return torch.cat([words[:, :1], *seen, words[:, 2:]], dim=1)


@torch.no_grad()
def test_logits_agree(models, batch, assert_close):
    ours, theirs = models
    visual = ours.see(batch["video"])
    count = QUERIES * (5 if ours.crops == 2 else 1)
    assert visual.shape == (2, count, 32)
    said = theirs.speaks(inputs_embeds=embedded(ours, theirs, batch)).logits
    want = torch.cat([said[:, :1], said[:, count:-1]], dim=1)
    assert_close(ours.logits(visual, batch["text"], batch["text_length"]), want, 1e-4)


@torch.no_grad()
def test_greedy_text_is_the_same(models, batch):
    ours, theirs = models
    made = ours.answer(ours.see(batch["video"]), batch, count=6, sampling=Sampling(temperature=0.0))
    inputs = embedded(ours, theirs, batch)
    options = {"do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones(inputs.shape[:2], dtype=torch.int64)
    said = theirs.speaks.generate(inputs_embeds=inputs, attention_mask=mask, **options)
    assert torch.equal(torch.stack(list(made), dim=1), said)
