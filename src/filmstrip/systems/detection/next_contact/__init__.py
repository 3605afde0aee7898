"""Short-term anticipation: which object will be touched next, where it is, by which action and in how many seconds.

Tokens of five layers of an encoder, those of the last frame, become the five maps of a feature pyramid; boxes are
proposed from it as in Faster R-CNN, and StillFast's head tells of each box the noun, the verb and the seconds to
contact. The encoder is any whose layers have one width; it is trained, frozen, or goes on learning by its own loss.
Ragusa et al., "StillFast: An End-to-End Approach for Short-Term Object Interaction Anticipation", 2023; with Toto
in place of its two networks, Rajasegaran et al., "An Empirical Study of Autoregressive Pre-training from Videos",
2025.

    filmstrip train detection.next_contact:toto_large_ego4d_v1 --data VIDEOS \\
        --data.reads.annotations ANNOTATIONS --init runs/toto
    filmstrip eval RUN --protocol next_contact --data VIDEOS
    filmstrip anticipate RUN film.mp4 --out drawn.mp4

The head, its losses (noun 1, verb 0.1, seconds 0.5) and how boxes are chosen to learn from are those of the authors'
code. What the paper on Toto leaves out is ours: which layers (evenly spaced), how they are resampled (one transposed
convolution or one of 1 to 8 positions, after a layer norm), frames (four, every fourth, of 32 x 32 codes, so many
codes as it was trained on), AdamW at 1e-4 with a decay of 0.9 a layer, and anchors and levels, which are StillFast's
scaled from frames of 800 pixels to 256. Batch, warm-up, weight decay and epochs are StillFast's; its rate falls in
steps, ours along a cosine. Whole frames are resized to squares. Of overlapping contacts the better one is kept among
the 1,000 best, in 20 rounds (``boxes.survivors``), so that no shape depends on the data.

The paper reports (Ego4D v1, top-5 mAP: noun, noun and verb, noun and time, all): Toto-large 15.20, 6.75, 5.41, 2.70;
StillFast 16.20, 7.47, 4.94, 2.48.

Measured here, in trials with the data and sizes of ``tiny`` but four frames and 2e-3 (one seed, 60 unseen videos,
top-5 mAP of nouns): 11.9 after 100 steps, 27.0 after 200, 32.7 after 300; on the 300 training videos 69.9 after 385.
``reaches`` therefore has four times as many videos, a larger hand and wider waves; it has not been run to its end,
and nothing was run with Toto.
"""

from filmstrip.systems.detection.next_contact.model import NextContact, NextContactConfig
from filmstrip.systems.detection.next_contact.presets import (
    reaches,
    tiny,
    tiny_one_frame,
    tiny_toto,
    toto_1b_ego4d_v1,
    toto_base_ego4d_v1,
    toto_large_ego4d_v1,
)
