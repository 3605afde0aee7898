"""LaViLa: language models write the captions that two towers of video and text learn from.

A narrator, a frozen GPT-2 into which layers that look at a clip were put, describes every clip several times, with or
without a human's sentence; a rephraser, any encoder-decoder of text, says human sentences in other words. Both are
asked once, beforehand. Then a TimeSformer and CLIP's text tower learn from all texts alike. Zhao et al., "Learning
Video Representations from Large Language Models", CVPR 2023.

    filmstrip train language.lavila:base --data HUMAN --data.reads.tokenizer CLIP --out runs/few
    filmstrip train language.lavila:narrator_base_gpt2 --data HUMAN --data.reads.tokenizer GPT2 --out runs/narrator \\
        --objective.encoder-run runs/few --objective.decoder-run GPT2
    filmstrip caption runs/narrator VIDEOS --out NARRATED/manifest.parquet --number 10 --temperature 0.7 --top-p 0.95
    filmstrip rephrase T5 HUMAN --out REPHRASED/manifest.parquet --split train
    filmstrip train language.lavila:base --data REPHRASED NARRATED --data.weights 1 1 --data.reads.tokenizer CLIP

``REPHRASED`` and ``NARRATED`` are manifests of clips in folders of their own: human sentences with what the
rephraser made of them, and what the narrator said of these and other clips (``filmstrip caption``, or
:meth:`Narrator.narrate`). With weights 1 and 1 half of the texts are the narrator's, as published. The language model
may be of LLaMA's family, too. ``--init`` takes a file of the authors' two towers, where the texts' is CLIP's (their
checkpoints hold an object of their code beside the weights: save ``state_dict`` alone).

Numbers that the paper leaves out are those of the public code: 256 queries, whose heads share keys and values; a
layer before every block of GPT-2, or every second one; squared ReLUs in it; a temperature of 0.7.

Where we deviate: equal texts of a batch are no negatives; gradients are clipped by their norm,
not by value; the largest video tower has CLIP's text tower beside it, not DistilBERT.

The paper reports, on EPIC-KITCHENS-100 without examples, a mean average precision of 36.1 for L; with narrations of
GPT-2 XL 26.2, of GPT-2 24.3, of an untrained GPT-2 XL 20.1; 29.7 with nucleus sampling and 27.9 with beam search.
"""

from filmstrip.systems.language.lavila.dual import Lavila, LavilaConfig
from filmstrip.systems.language.lavila.narrator import Narrator, NarratorConfig
from filmstrip.systems.language.lavila.presets import (
    base,
    large,
    large_336,
    narrator_base_gpt2,
    narrator_large_gpt2_xl,
    narrator_large_gpt2_xl_336,
    tiny,
    tiny_narrator,
)
