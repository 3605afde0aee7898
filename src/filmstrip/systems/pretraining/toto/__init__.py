"""Toto: a LLaMA-like transformer that predicts the next code of videos and images, trained without labels.

Each frame becomes a grid of dVAE codes; the codes of 16 frames of a video, or those of 16 unrelated images, make one
sequence between a start and an end token. What the middle layers hold is used for recognition, tracking and control:
the last ones serve prediction.
Rajasegaran et al., "An Empirical Study of Autoregressive Pre-training from Videos", 2025.

    filmstrip train pretraining.toto:base --data PATH --objective.tokenizer-run RUN
    filmstrip train pretraining.toto:base --data IMAGENET EGO4D KINETICS HOWTO100M --objective.tokenizer-run RUN

The presets hold the paper's mixture, 20% images and 10, 10 and 60% of three sets of videos; ``--data.weights`` are
those of others. Images see those before them in their sequence, as nothing else is said; ``document_mask`` separates
them.

Where we deviate: the paper's start and end tokens (1, 2, 3) have the numbers of codes, so that codes are shifted by
four here; its printed block adds to the normalised tokens, which we take for a misprint of LLaMA's; 4096 codes with
start and end are 4098 tokens, not "4K". The optimiser, its rates and the batch are not in the paper: AdamW (0.9,
0.95), weight decay 0.1, 3e-4 (2e-4 for 1b), cosine to a tenth, 256 sequences, a trillion tokens are ours.
Embeddings and output layer are tied, with which all three sizes round to those printed (120 M, 280 M, 1.1 B).

Comparators of equal size: ``gpt2_280m`` (layer normalisation, GELU, added sines and cosines; 21 layers) and
``mamba_290m`` (42 layers), whose widths the paper does not give.

On pixels (``large_patches_in1k``, ``large_patches_to_codes_in1k``): patches are embedded in place of codes, and
the next one's normalised pixels, or its code, are predicted; squared error, frames of 256 pixels and no end token are
ours. The paper reports 60.6 and 58.5 for them, 61.2 for codes of the same frames (ImageNet, linear probe).

A ladder of sizes for the paper's scaling law: ``a1`` to ``a6``, in muP, for which embeddings are not tied. The table
of the paper's own six is missing ("linearly growing width and depth"): 128 i wide, 2 i deep, 2 i heads are ours.

    filmstrip scale pretraining.toto --ladder 6 --tokens 2e6 --data TOKENS --out FOLDER

The paper reports (top-1, attention probe of the best layer, the backbone trained on): ImageNet 64.7, 71.1, 75.3 and
Kinetics-400 59.3, 65.3, 74.4 for base, large, 1b; DAVIS J&F 62.4 (large, 512 pixels); a loss of 7.42 C^-0.0386 for C
multiply-adds in a unit that cannot be what it says, and 2^-7 as the best rate of every width.
"""

from filmstrip.systems.pretraining.toto.model import Toto, TotoConfig
from filmstrip.systems.pretraining.toto.patches import TotoPatches, TotoPatchesConfig
from filmstrip.systems.pretraining.toto.presets import (
    a1,
    a2,
    a3,
    a4,
    a5,
    a6,
    base,
    gpt2_280m,
    large,
    large_32,
    large_in1k,
    large_patches_in1k,
    large_patches_to_codes_in1k,
    mamba_290m,
    one_b,
    tiny,
    tiny_patches,
    tiny_patches_to_codes,
)
