"""BLIP-2: a small transformer with learned queries joins a frozen image encoder and a frozen language model.

In the first stage queries learn to read from the encoder what texts say, by three losses of one transformer: contrast
(queries and text apart; the most similar query counts), matching (both together; similar pairs that do not belong
together are told from those that do), and captioning (text sees the queries and what was said). In the second stage
the queries' outputs, through a linear layer, stand in front of the language model's text. Li et al., "BLIP-2:
Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models", ICML 2023.

    filmstrip train language.blip2:stage1_vit_g --data CAPTIONS --data.reads.tokenizer BERT --init EVA_CLIP
    filmstrip train language.blip2:stage2_vit_g_vicuna_7b --data DIALOGUES.json --init RUN \\
        --objective.encoder-run RUN --objective.decoder-run VICUNA --data.reads.tokenizer VICUNA

The query transformer is in ``models/query_transformer.py``, the connector of the second stage in
``models/query_connector.py``. Numbers that the paper leaves out (32 queries in BERT's base size, cross-attention in
every second layer, vectors of 256) are those of the public code, as are the hard negatives, one for each pair drawn
by its similarity, and label smoothing of 0.1.

Where we deviate: of a video the tokens of all frames are read together in the first stage; equal captions are no
negatives; the language model is of LLaMA's family (published: OPT and FlanT5), on whose text all of the loss is;
dropout of attention weights is left out; both stages' encoder ends with a norm of its own.

The paper reports: VQAv2 without examples 65.0 with 188M trained weights; NoCaps CIDEr 121.6; recall at 1 on Flickr30K
without examples 97.6 from image to text and 89.7 from text to image; without the first stage, less.
"""

from filmstrip.systems.language.blip2.alignment import Blip2, Blip2Config
from filmstrip.systems.language.blip2.generation import Blip2Language, Blip2LanguageConfig
from filmstrip.systems.language.blip2.presets import (
    stage1_vit_g,
    stage1_vit_l,
    stage2_vit_g_vicuna_7b,
    tiny,
    tiny_stage2,
)
