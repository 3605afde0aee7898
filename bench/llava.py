"""LLaVA, training steps and generation, ours against ``transformers``, alternating in one process.

    python bench/llava.py
    python bench/llava.py --precisions float32 --without-memory --rounds 9   # less than two minutes of one core

One frame of 96 x 96 pixels (36 visual tokens), 48 tokens of text; 2 layers of 128 channels of CLIP and 4 of 256 of
LLaMA, with the same random weights in both. A training step is a forward and a backward pass of connector and
language model and AdamW's update; generation is 32 tokens after 20, greedily, with keys and values kept.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.teachers import TowerConfig
from filmstrip.systems.language.llava import Llava, LlavaConfig, from_llava
from peers import Case, Step, compare, inference, training

SIZE, PATCH, VOCAB, PLACE, TEXT, PROMPT, MADE = 96, 16, 8000, 7999, 48, 20, 32
WIDTH, DEPTH, HEADS, HIDDEN = 256, 4, 4, 688
TOKENS = (SIZE // PATCH) ** 2
VISION = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
}


def reference():
    """The model of ``transformers``, with random weights."""
    import transformers

    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        rms_norm_eps=1e-6,
        eos_token_id=None,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION), text_config=text, image_token_index=PLACE
    )
    made = transformers.LlavaForConditionalGeneration(config)
    made.model.vision_tower.requires_grad_(False)
    return made


def model() -> Llava:
    """Ours, with the same weights."""
    made = LlavaConfig(
        encoder=TowerConfig(model_type="clip_vision_model", settings=tuple(VISION.items())),
        layer=-2,
        decoder=DecoderConfig(vocab_size=VOCAB, width=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_dim=HIDDEN),
        trains=("connector", "decoder"),
        placeholders=(PLACE,),
    ).build()
    made.load_state_dict(from_llava(reference().state_dict(), made))
    return made


def data(batch: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, VOCAB - 1, (batch, length), generator=generator)
    text[:, 1] = PLACE
    video = torch.randint(0, 256, (batch, 1, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    learnt = torch.zeros_like(text, dtype=torch.bool)
    learnt[:, length // 2 :] = True
    return {"video": video, "text": text, "text_length": torch.full((batch,), length), "learnt": learnt}


def repeated(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as transformers takes it: the place of the image once for every visual token."""
    counts = torch.where(batch["text"][0] == PLACE, TOKENS, 1)
    ids = batch["text"].repeat_interleave(counts, dim=1)
    learnt = batch["learnt"].repeat_interleave(counts, dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": batch["video"][:, 0].float() / 255,
        "labels": ids.masked_fill(~learnt, -100),
    }


def ours(task: str, batch: int, precision: str) -> Step:
    network = model()
    if task == "training":
        given = data(batch, TEXT)
        return training(network.train().parameters(), lambda: network(given).total, precision)
    given = data(batch, PROMPT)
    network.eval()

    def made() -> Tensor:
        return torch.stack(list(network.answer(network.see(given["video"]), given, count=MADE)))

    return inference(made, precision)


def theirs(task: str, batch: int, precision: str) -> Step:
    network = reference()
    if task == "training":
        given = repeated(data(batch, TEXT))
        return training(network.train().parameters(), lambda: network(**given).loss, precision)
    given = repeated(data(batch, PROMPT))
    given.pop("labels")
    network.eval()
    how = {"do_sample": False, "min_new_tokens": MADE, "max_new_tokens": MADE, "pad_token_id": 0}
    return inference(lambda: network.generate(**given, **how), precision)


CASES = {
    f"{task}, batch {batch}": Case(partial(ours, task, batch), partial(theirs, task, batch))
    for task in ("training", "generation")
    for batch in (1, 8)
}

if __name__ == "__main__":
    compare(CASES, __file__, __doc__.splitlines()[0])
