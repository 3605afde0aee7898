"""Toto's training steps against ``LlamaForCausalLM`` of equal size, in one process, alternating, at equal precision.

    python bench/next_codes.py                       # Toto-base and a narrower one, 1,024 codes, two precisions
    python bench/next_codes.py --cases "Toto-S" --precisions float32 --rounds 3

A step is a forward and a backward pass and AdamW's update on the codes of one clip (4 frames of 16 x 16), which both
get as ids. Both have the same layers and tied embeddings, and the same loss: the cross-entropy of every code and of
the end, in float32, given what comes before. Memory and shares are measured as in ``bench/videomae.py``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from filmstrip.systems.pretraining import toto
from filmstrip.systems.pretraining.toto.model import END, SPECIALS, VIDEO
from peers import Case, Step, compare, training

FRAMES, CODE = 4, 8  # a code stands for 8 x 8 pixels of a frame
BASE = replace(toto.base().objective, num_frames=FRAMES)
NETWORKS = {"Toto-S": replace(BASE, width=384, depth=6, num_heads=6, mlp_dim=1024), "Toto-base": BASE}


def ids(config: toto.TotoConfig) -> torch.Tensor:
    places = FRAMES * (config.size // CODE) ** 2
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.tokenizer.codebook.size, (1, places), generator=generator)


def ours(config: toto.TotoConfig, precision: str) -> Step:
    objective, batch = config.build().train(), {"tokens": ids(config)}
    return training(objective.encoder.decoder.parameters(), lambda: objective(batch).total, precision)


def theirs(config: toto.TotoConfig, precision: str) -> Step:
    import transformers

    sizes = transformers.LlamaConfig(
        vocab_size=SPECIALS + config.tokenizer.codebook.size,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_dim,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(sizes).train()
    sequence = F.pad(ids(config) + SPECIALS, (1, 0), value=VIDEO)
    targets = F.pad(sequence[:, 1:], (0, 1), value=END)

    def loss() -> torch.Tensor:
        logits = model(input_ids=sequence).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return training(model.parameters(), loss, precision)


CASES = {name: Case(partial(ours, config), partial(theirs, config)) for name, config in NETWORKS.items()}

if __name__ == "__main__":
    compare(CASES, __file__, __doc__.splitlines()[0])
