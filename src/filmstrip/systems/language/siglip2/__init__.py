"""SigLIP 2: SigLIP with a decoder that captions and finds regions, and with self-distillation in the last fifth.

A decoder on the tokens of patches writes captions, the boxes that phrases name and phrases for boxes; in the last
fifth of training a slowly moving teacher sees the whole frame and the student parts of it, and masked patches are
predicted. Both exist in training alone: what is used afterwards is SigLIP's two towers. One variant reads frames at
their own shape (NaFlex). Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic
Understanding, Localization, and Dense Features", 2025.

    filmstrip train language.siglip2:b16_256 --data PATH --data.reads.tokenizer FOLDER
    filmstrip train language.siglip2:b16_naflex --data PATH --init hf:google/siglip2-base-patch16-naflex

``model.py`` has the objective, ``decoder.py`` the decoder, ``distillation.py`` the last fifth; the towers are in
:mod:`filmstrip.models`, the sigmoid loss is in :mod:`filmstrip.objectives.contrastive`. The decoder is LocCa's (Wan
et al. 2024), whose code is not public: coordinates are tokens of 1000 bins, each of the three tasks has the weight of
the sigmoid loss, and half of the captions are predicted at once, as in CapPa.

What is ours: a clip is read frame by frame and as the mean of its frames' vectors; a caption's decoder knows the
frames by their order, a region's reads one frame, drawn anew each time. Of what our sources leave open: both heads
of self-distillation are networks of two layers, vectors are normalised before their distance is squared, distances
are means over masked patches (the text sums), half of the patches are masked, a whole view has 40 to 100% of a
frame's area and a local one 5 to 40%, and views are crops and nothing else. The text's third loss, a contrast of
phrases with pooled regions, is not built. Of frames of any size the whole frame is read, at the largest size whose
patches are no more than a batch's number, of which one is drawn for each batch. A curator (ACID) chooses from the
batch of its own process.

The paper reports, from SigLIP to SigLIP 2 at B/16 and 256 pixels: ImageNet without examples 76.7 and 79.1, COCO from
text to image 47.4 and 53.2, RefCOCO val 64.05 and 83.76; frozen So400m/14 at 224 pixels: PASCAL segmentation 72.0 and
77.1 mIoU, NYUv2 depth 0.576 and 0.493 RMSE. ``filmstrip claims siglip2_dense`` re-runs the latter small.
"""

from filmstrip.systems.language.siglip2.decoder import DecoderConfig
from filmstrip.systems.language.siglip2.distillation import DistillationConfig
from filmstrip.systems.language.siglip2.model import SigLIP2, SigLIP2Config, curation_scores
