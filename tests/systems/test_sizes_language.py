"""Models of video and language have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Of the released models, in all and of the image tower.
TWO_TOWERS = {
    "language.siglip:b16_224": (203.156, 92.884),
    "language.siglip:b16_256": (203.202, 92.930),
    "language.siglip:l16_256": (652.151, 315.956),
    "language.siglip:so400m_384": (877.960, 428.226),
    "language.siglip2:b16_224": (375.188, 92.884),
    "language.siglip2:b16_256": (375.234, 92.930),
    "language.siglip2:b32_256": (376.856, 94.552),
    "language.siglip2:l16_256": (881.527, 315.956),
    "language.siglip2:so400m_14_224": (1135.464, 427.681),
    "language.siglip2:so400m_16_256": (1135.671, 427.888),
    "language.siglip2:g16_256": (1871.394, 1163.168),
    "language.siglip2:b16_512": (375.824, 93.520),
    "language.siglip2:b16_naflex": (375.234, 92.930),
    "language.siglip2:so400m_16_naflex": (1135.671, 427.888),
    "language.siglip2:b32_256_curated": (376.856, 94.552),
    "language.siglip2:b16_256_curated": (375.234, 92.930),
    "language.clip:b32_224": (151.277, 87.456),
    "language.clip:b16_224": (149.621, 85.799),
    "language.clip:l14_224": (427.617, 303.180),
}

# By hand: a ViT-B/16 (85.799 million) with a second attention and norm in each block and a position for each frame, a
# DistilBERT (66.363 million, counted in transformers), and two projections to 256.
TIMED = (85_798_656 + 12 * (4 * (768 * 768 + 768) + 2 * 768)) / 1e6
TWO_TOWERS |= {
    f"language.frozen_in_time:base_{frames}f": (
        TIMED + frames * 768 / 1e6 + 66.36288 + 2 * 769 * 256 / 1e6 + 1e-6,
        TIMED + frames * 768 / 1e6,
    )
    for frames in (1, 4, 8)
}


@pytest.mark.parametrize("address", TWO_TOWERS)
def test_two_towers(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    beside = ("decoder.", "distillation.")  # of SigLIP 2, in training alone
    whole = sum(p.numel() for name, p in objective.named_parameters() if not name.startswith(beside)) / 1e6
    counts = [whole, sum(p.numel() for p in objective.encoder.parameters()) / 1e6]
    assert counts == [pytest.approx(count, rel=1e-4) for count in TWO_TOWERS[address]]


# Without momentum copies, by hand: a tower, BERT's base size with two ids more and without its pooling and its
# embedding of types, self-attention of the decoder and cross-attention with a norm in every layer, the head of words.
BERT, OWN = 108.891648, 12 * (4 * 768 * 769 + 2 * 768) / 1e6
CROSS = {768: 12 * (4 * 768 * 769 + 2 * 768) / 1e6, 1024: 12 * (2 * 768 * 769 + 2 * 768 * 1025 + 2 * 768) / 1e6}
WORDS = (768 * 769 + 2 * 768 + 30_524) / 1e6
BLIP = {
    "language.blip:vit_b": (85.798656 + BERT + OWN + CROSS[768] + WORDS, 0.4),
    "language.blip:vit_l": (303.301632 + BERT + OWN + CROSS[1024] + WORDS, 0.5),
    "language.blip:captioner_vit_b": (86.090496 + BERT + OWN + CROSS[768] + WORDS, 0.4),
    "language.blip:filter_vit_b": (86.090496 + BERT + OWN + CROSS[768] + WORDS, 0.4),
}


@pytest.mark.parametrize("address", BLIP)
def test_blip(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    count = sum(p.numel() for name, p in objective.named_parameters() if not name.startswith("copies")) / 1e6
    expected, heads = BLIP[address]
    assert expected < count < expected + heads


def test_blip_that_captions_is_as_large_as_the_paper_says():
    """446M with ViT-L: the tower, the decoder and the head of words."""
    with torch.device("meta"):
        objective = systems.find("language.blip:vit_l").objective.build()
    parts = (objective.encoder, objective.text, objective.words)
    assert sum(p.numel() for part in parts for p in part.parameters()) / 1e6 == pytest.approx(446, rel=0.001)


# The paper gives no count. By hand: Frozen in Time's encoder with one layer more behind attention over time, BERT's
# base size three times, twice with cross-attention; heads are the rest.
OMNIVL = {
    f"language.omnivl:{preset}": (TIMED + (12 * 768 * 769 + frames * 768) / 1e6, 3 * BERT + 2 * CROSS[768] + WORDS)
    for preset, frames in (("base_images", 1), ("base_joint", 8))
}


@pytest.mark.parametrize("address", OMNIVL)
def test_omnivl(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    encoder, texts = OMNIVL[address]
    count = sum(p.numel() for name, p in objective.named_parameters() if not name.startswith("copies")) / 1e6
    assert sum(p.numel() for p in objective.encoder.parameters()) / 1e6 == pytest.approx(encoder, rel=1e-6)
    assert count == pytest.approx(encoder + texts + (2 * 769 * 256 + 769 * 2 + 1) / 1e6, rel=1e-6)


# Without heads, as the paper and the authors' list of models count: an image transformer and BERT's embeddings.
ONE = {
    "language.all_in_one:ti": (12, 192),
    "language.all_in_one:s": (33, 384),
    "language.all_in_one:base": (110, 768),
}


@pytest.mark.parametrize("address", ONE)
def test_one_transformer(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    encoder, text = (sum(p.numel() for p in part.parameters()) for part in (objective.encoder, objective.text))
    millions, width = ONE[address]
    block = 12 * width**2 + 13 * width
    assert encoder == 12 * block + (768 + 1 + 1 + 197 + 3 + 2) * width
    assert text == (30_522 + 40 + 2) * width
    assert (encoder + text) / 1e6 == pytest.approx(millions, abs=0.75)


# All-in-one's paper counts 198M of VIOLET, heads included; its tokenizer is no part of that.
MASKED = {"language.violet:small_webvid": 198}


@pytest.mark.parametrize("address", MASKED)
def test_masked_visual_tokens(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    own = sum(p.numel() for name, p in objective.named_parameters() if not name.startswith("target."))
    assert own / 1e6 == pytest.approx(MASKED[address], rel=0.01)


VICUNA_7B, VICUNA_13B, CLIP_L, CLIP_L_336 = 6738.415616, 13015.86432, 303.179776, 303.507456
"""Millions of parameters of the public models, heads included."""
# Those of the whole, and those that are trained, by hand: one layer with a bias, or two; 128 (inputs + outputs) for
# every layer that is adapted.
ADAPTATION = 128 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11_008)) / 1e6
PROJECTORS = {
    "v0_7b": 1025 * 4096 / 1e6,
    "v0_13b": 1025 * 5120 / 1e6,
    "v15_7b": (1025 * 4096 + 4097 * 4096) / 1e6,
    "v15_13b": (1025 * 5120 + 5121 * 5120) / 1e6,
}
MODELS = {
    f"language.llava:{name}_{stage}": (
        (VICUNA_7B if "7b" in name else VICUNA_13B) + (CLIP_L if "v0" in name else CLIP_L_336) + projector,
        projector + (0 if stage == "stage1" else VICUNA_7B if "7b" in name else VICUNA_13B),
    )
    for name, projector in PROJECTORS.items()
    for stage in ("stage1", "stage2")
} | {
    "language.llava:v15_7b_lora": (
        VICUNA_7B + CLIP_L_336 + PROJECTORS["v15_7b"] + ADAPTATION,
        PROJECTORS["v15_7b"] + ADAPTATION,
    )
}


# BLIP-2 trains 188M in its first stage (the paper), 108M in the second (published code); the STC has 489M (the
# authors' code, counted) of Video-LLaMA 2's 8.0B; Qwen2-VL's towers have 665M to 699M (published code) of 2.2B, 8.3B
# and 73.4B.
QUERIES = {
    "language.blip2:stage1_vit_g": (1172.66, 188),
    "language.blip2:stage1_vit_l": (474, 183.2),
    "language.blip2:stage2_vit_g_vicuna_7b": (7832.7, 108),
    # BERT's vocabulary is 1,479 ids smaller, and the last layer's network for text (4.7M) has no use and is left out.
    "language.instructblip:vicuna_7b": (7909.6, 188 - 4.7 + 1.1),
    "language.video_llama:vicuna_7b_stage1": (7851.6, 18.9 + 32 * 768 / 1e6 + 769 * 4096 / 1e6),
    "language.video_llama:vicuna_7b_stage2": (7851.6, 18.9 + 32 * 768 / 1e6 + 769 * 4096 / 1e6),
    "language.longvlm:vicuna_7b": (VICUNA_7B + CLIP_L + PROJECTORS["v0_7b"], PROJECTORS["v0_7b"]),
    "language.video_llama2:mistral_7b_stage1": (8030, 489.188608),
    "language.video_llama2:mistral_7b_stage2": (8030, 489.188608 + 7241.732096),
    # The paper says 9.6B: 1.9B, 0.08B (the adapter without its last layer, which has 16.8M) and 7.7B.
    "language.qwen_vl:stage1": (9600, 1843 + 75.0 + 16.8),
    "language.qwen_vl:stage2": (9600, 9600),
    "language.qwen_vl:stage3": (9600, 75.0 + 16.8 + 7721.3),
    "language.qwen2_vl:stage1_2b": (2208.9856, 665.3),
    "language.qwen2_vl:stage1_7b": (8291.375616, 675.8),
    "language.qwen2_vl:stage1_72b": (73405.56032, 699.4),
    "language.qwen2_vl:stage2_7b": (8291.375616, 8291.375616),
    "language.qwen2_vl:stage3_7b": (8291.375616, 8291.375616 - 665.3 + 34.1),
    # 8 (inputs + outputs) for every layer.
    "language.qwen2_vl:lora_7b": (
        8291.375616 + 20.19,
        8 * 28 * (2 * 7168 + 2 * (3584 + 512) + 3 * (3584 + 18_944)) / 1e6,
    ),
    # SigLIP's so400m without its last block and its head, a connector with a token that ends rows, and Qwen2.
    "language.llava_onevision:stage1_0b5": (494.03 + 397.75 + 1.84, 1.84),
    "language.llava_onevision:stage1_7b": (8030, 16.98),
    "language.llava_onevision:stage1_72b": (72_706.2 + 397.75 + 76.57, 76.57),
    "language.llava_onevision:stage1_5_7b": (8030, 8030),
    "language.llava_onevision:stage2a_7b": (8030, 8030),
    "language.llava_onevision:stage2b_7b": (8030, 8030),
    "language.llava_onevision:lora": (8030 + 20.19, 20.19),
    # SigLIP's so400m without positions and head (412.1M), a connector of two layers, and Qwen2.5.
    "language.video_llama3:stage1_2b": (412.15 + 4.13 + 1543.71, 416.28),
    "language.video_llama3:stage1_7b": (412.15 + 16.98 + 7615.62, 429.13),
    "language.video_llama3:stage2_7b": (8044.75, 8044.75),
    "language.video_llama3:stage3_7b": (8044.75, 8044.75),
    "language.video_llama3:stage4_2b": (1959.99, 1959.99),
    "language.video_llama3:stage4_7b": (8044.75, 8044.75),
    "language.video_llama3:lora": (8044.75 + 20.19, 20.19),
}
QUERIES["language.qwen2_vl:lora"] = QUERIES["language.qwen2_vl:lora_7b"]


@pytest.mark.parametrize("address", QUERIES)
def test_queries_and_native_sizes(address):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    sizes = [(p.numel(), p.requires_grad) for p in objective.parameters()]
    counts = sum(n for n, _ in sizes) / 1e6, sum(n for n, trained in sizes if trained) / 1e6
    assert counts == pytest.approx(QUERIES[address], rel=0.01)


# The papers say 1B and 6B for the encoder; counted by hand over the published layout.
def _with_bert(width, encoder):
    """Millions of parameters of both encoders and the heads; BERT-large has 24 layers, 5 of which read the clip."""
    layer = 12 * 1024**2 + 13 * 1024
    cross = 2 * 1024 * 1025 + 2 * 1024 * (width + 1) + 2 * 1024
    embedding = (30_522 + 512 + 2) * 1024
    heads = 769 * 512 + 1025 * 512 + 2 * 1025 + 1
    words = 1024 * 1025 + 2 * 1024 + 30_522
    return encoder + (24 * layer + 5 * cross + embedding + heads + words) / 1e6


ENCODERS = {
    "language.internvideo2:one_b": (1408, 40, 4.363636),
    "language.internvideo2:six_b": (3200, 48, 4.0),
}


@pytest.mark.parametrize("address", ENCODERS)
def test_encoders_of_video_with_bert(address):
    width, depth, ratio = ENCODERS[address]
    hidden = int(width * ratio + 1e-3)
    layer = 4 * width**2 + width + (2 * hidden + 1) * width + hidden + 6 * width
    pool = 3 * width * (width + 1) + 768 * (width + 1) + 6 * width
    encoder = depth * layer + pool + (588 + 1) * width + (1 + 1 + 4 * 256) * width
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (objective, objective.encoder)]
    assert counts == pytest.approx([_with_bert(width, encoder / 1e6), encoder / 1e6], rel=1e-4)


CAPTIONERS = {
    "language.internvideo:b16": ("b16_8_k400", 768, 512, 149.621 - 85.799),
    "language.internvideo:l14": ("l14_8_k400", 1024, 768, 427.617 - 303.180),
}
"""The preset of the encoder, its width and that of the text, and CLIP's millions beside its image tower."""


# By hand: Mistral-7B, the encoder of 1B over 8 or 16 frames, three layers of queries, and products of rank 8.
def _chat(frames):
    width, hidden = 1408, 6144
    layer = 4 * width**2 + width + (2 * hidden + 1) * width + hidden + 6 * width
    pool = 3 * width * (width + 1) + 768 * (width + 1) + 6 * width
    encoder = 40 * layer + pool + 589 * width + (2 + frames * 256) * width
    mlp = 2 * 768 * 3072 + 3840
    reader = 3 * (4 * 768 * 769 + 2 * 768 * 769 + 2 * 768 * 1409 + mlp + 6 * 768)
    connector = reader + 2 * 1408 + 34 * 768 + 769 * 4096
    adaptation = 32 * 8 * (2 * 8192 + 2 * (4096 + 1024))
    return (7241.732096 + (encoder + connector + adaptation) / 1e6, (connector + adaptation) / 1e6)


CHATS = {
    "language.internvideo2_chat:mistral_7b": _chat(8),
    "language.internvideo2_chat:mistral_7b_hd": _chat(8),
    "language.internvideo2_chat:mistral_7b_hd_16": _chat(16),
}


@pytest.mark.parametrize("address", CHATS)
def test_chats(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    sizes = [(p.numel(), p.requires_grad) for p in objective.parameters()]
    counts = sum(n for n, _ in sizes) / 1e6, sum(n for n, trained in sizes if trained) / 1e6
    assert counts == pytest.approx(CHATS[address], rel=1e-4)


def test_internvideo_2_5():
    """By hand: InternViT-300M without its layer scales, two layers, and InternLM2.5-7B (7.74B, as published)."""
    address = "language.internvideo2_5:chat_8b"
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    encoder = 24 * (12 * 1024**2 + 13 * 1024) + (3 * 14**2 + 1 + 1 + 1025) * 1024
    connector = 1025 * 4096 + 4097 * 4096
    layer = 4096 * (4096 + 2 * 1024 + 4096 + 3 * 14_336 + 2)
    decoder = 2 * 92_553 * 4096 + 32 * layer + 4096
    parts = (objective.encoder, objective.connector, objective.decoder)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [encoder, connector, decoder] and decoder == pytest.approx(7.74e9, rel=0.001)


@pytest.mark.parametrize("address", CAPTIONERS)
def test_captioners(address):
    name, seen, width, clip = CAPTIONERS[address]
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
        below = systems.find(f"recognition.uniformer_v2:{name}").objective.build().encoder
    sides = 4 * width * 128 + 8 * 3 * 4 * width**2 + 8 * (2 * width**2 + width) + 4 * width * 128
    pool = 256 * width + 2 * width**2 + 128 * seen + 4 * width + 2 * seen
    head = 4 * width + (width + 1) * width + (width + 1) * 49_408
    expected = clip + (sides + pool + 2 * width + head + 2 * seen) / 1e6
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (objective, below)]
    assert counts[0] - counts[1] == pytest.approx(expected, rel=1e-4)


# LLaMA-2 7B, which longer contexts and other rotary bases do not make larger.
MODELS |= {
    f"language.lwm_text:{stage}": (VICUNA_7B, VICUNA_7B)
    for stage in (
        *(f"text_{length}" for length in ("32k", "128k", "256k", "512k", "1m")),
        *(f"chat_{length}" for length in ("128k", "256k", "512k", "1m")),
    )
}


# The same with a table of 8,448 vision tokens and their output layer, beside aMUSEd's frozen VQ-GAN, which has as
# many weights as diffusers' (tests/parity/test_diffusers.py).
AMUSED = 146.244675
WITH_VISION = VICUNA_7B + 2 * 8448 * 4096 / 1e6
MODELS |= {
    f"language.lwm:vision_{stage}": (WITH_VISION + AMUSED, WITH_VISION)
    for stage in ("1k", "8k", "chat_32k", "chat_128k", "chat_1m")
}


@pytest.mark.parametrize("address", MODELS)
def test_models(address):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    sizes = [(p.numel(), p.requires_grad) for p in objective.parameters()]
    counts = sum(n for n, _ in sizes) / 1e6, sum(n for n, trained in sizes if trained) / 1e6
    assert counts == pytest.approx(MODELS[address], rel=1e-6)


def test_llava_is_as_large_as_is_said():
    assert MODELS["language.llava:v15_7b_stage2"][0] == pytest.approx(7060, rel=0.001)


def gated(width: int, layers: int) -> float:
    """Gated layers, with four matrices of attention and a network four times as wide, and the pooling with 256
    queries in heads of 64, whose input is a TimeSformer's tokens."""
    seen = 768 if layers == 12 else 1024
    pooling = 256 * width + 2 * width**2 + 2 * 64 * seen + 2 * (2 * width + seen)
    return (layers * (12 * width**2 + 13 * width + 2) + pooling) / 1e6


# GPT-2 has 124M and GPT-2 XL 1558M (published). The TimeSformer is CLIP's image tower with attention over time in
# each block and positions of four frames; CLIP's text tower is without its head.
GPT2, GPT2_XL = 124.439808, 1557.6112
TIMESFORMER_B = 85.799424 + (12 * (4 * 768**2 + 6 * 768) + 4 * 768) / 1e6
TIMESFORMER_L = 303.179776 + (24 * (4 * 1024**2 + 6 * 1024) + 4 * 1024) / 1e6
TIMESFORMER_L_336 = TIMESFORMER_L + (24**2 - 16**2) * 1024 / 1e6
TOWERS_B = TIMESFORMER_B + 63.165952 + 256 * (768 + 512) / 1e6
TOWERS_L = TIMESFORMER_L + 123.060480 + 256 * (1024 + 768) / 1e6
NARRATORS = {
    "language.lavila:base": (TOWERS_B, TOWERS_B),
    "language.lavila:large": (TOWERS_L, TOWERS_L),
    "language.lavila:large_336": (TOWERS_L + TIMESFORMER_L_336 - TIMESFORMER_L,) * 2,
    "language.lavila:narrator_base_gpt2": (TIMESFORMER_B + GPT2 + gated(768, 12), gated(768, 12)),
    "language.lavila:narrator_large_gpt2_xl": (TIMESFORMER_L + GPT2_XL + gated(1600, 24), gated(1600, 24)),
    "language.lavila:narrator_large_gpt2_xl_336": (TIMESFORMER_L_336 + GPT2_XL + gated(1600, 16), gated(1600, 16)),
}
# Swin-B without a head (87.6M), two layers to BERT's width, BERT-base's embeddings of words (and of the mask) and
# positions, 12 layers of 7.1M, its head with an output layer of its own, and a weight for each pair of 784 tokens.
SWIN_B, BERT_LAYERS = 87.638984, 12 * (12 * 768**2 + 13 * 768) / 1e6
BETWEEN = (1025 * 512 + 513 * 768 + (30_523 + 512 + 2) * 768 + 769 * 768 + 2 * 768 + 769 * 30_522) / 1e6
SWINBERT = SWIN_B + BERT_LAYERS + BETWEEN + 784**2 / 1e6
NARRATORS |= {f"language.swinbert:{name}": (SWINBERT,) * 2 for name in ("msrvtt", "msvd", "vatex", "youcook2", "tvc")}
NARRATORS["language.swinbert:msrvtt_64"] = (SWINBERT + 3 * 784**2 / 1e6,) * 2


@pytest.mark.parametrize("address", NARRATORS)
def test_narrators(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    sizes = [(p.numel(), p.requires_grad) for p in objective.parameters()]
    counts = sum(n for n, _ in sizes) / 1e6, sum(n for n, trained in sizes if trained) / 1e6
    assert counts == pytest.approx(NARRATORS[address], rel=1e-6)


def test_every_preset_is_named():
    tables = (TWO_TOWERS, MODELS, QUERIES, BLIP, OMNIVL, ONE, MASKED, ENCODERS, CAPTIONERS, CHATS, NARRATORS)
    assert not unnamed("language", *tables, ("language.internvideo2_5:chat_8b",))
