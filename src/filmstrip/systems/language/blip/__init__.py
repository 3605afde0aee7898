"""BLIP: one transformer of texts that contrasts them with images, matches them, and writes them; and CapFilt.

Texts alone are encoded to be contrasted with images, by their class tokens; with cross-attention to what is seen they
are judged (does this text belong to that image?) or, read from left to right, written. Encoder and decoder share all
but their self-attention. CapFilt cleans captions from the web: a captioner and a filter, each fine-tuned on clean
captions from the same start, write a caption for each image and remove those, from the web and written, that do not
match; a new model learns from the rest. Li et al., "BLIP: Bootstrapping Language-Image Pre-training for Unified
Vision-Language Understanding and Generation", ICML 2022.

    filmstrip train language.blip:vit_b --data CAPTIONS --data.reads.tokenizer BERT
    filmstrip train language.blip:captioner_vit_b --data CLEAN --init hf:Salesforce/blip-image-captioning-base
    filmstrip train language.blip:filter_vit_b --data CLEAN --init hf:Salesforce/blip-itm-base-coco
    filmstrip caption CAPTIONER WEB --out written.parquet --top-p 0.9 --temperature 1
    filmstrip filter FILTER written.parquet --out kept.parquet
    filmstrip train language.blip:vit_b --data kept.parquet --data.reads.tokenizer BERT

The paper's figure lets the modes differ by their masks alone; the public code, as here, gives encoder and decoder
self-attention of their own. From the public code come also: vectors of 256, a temperature that is learned from 0.07
within 0.001 and 0.5, copies with a momentum of 0.995, queues of 57,600 keys, targets that become soft over two
epochs, one hard pair for each video and each text, drawn by its similarity, and label smoothing of 0.1 in captioning.

Where we deviate: of a video the mean of its frames' class tokens is contrasted, and all their tokens are read
together; equal captions are no negatives; the copies run without dropout; the learning rate falls along a cosine
instead of by a tenth an epoch; attention weights have no dropout. Captions of a fine-tuned captioner begin as the
data have it: the published prompt, "a picture of", is given to ``filmstrip caption --prompt``.

The paper reports: with ViT-L and 129M images, CIDEr on NoCaps 113.2; recall at 1 on Flickr30K without examples 96.7
from image to text and 86.7 from text to image; fine-tuned on COCO 82.4 and 65.1.
"""

from filmstrip.systems.language.blip.model import Blip, BlipConfig
from filmstrip.systems.language.blip.presets import captioner_vit_b, filter_vit_b, tiny, vit_b, vit_l
