"""V-JEPA: predict the features of masked parts of a clip, which a slowly moving teacher computes, not their pixels.

A student encodes the visible positions of a clip; a narrow predictor makes of them the features of the masked ones,
as the teacher, a moving average of the student, sees them in the whole clip. Two masks a clip leave out many small
blocks or two large ones, through all frames.
Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video", TMLR 2024 (V-JEPA).
Assran et al., "V-JEPA 2: Self-Supervised Video Models Enable Understanding, Prediction and Planning", 2025.
Mur-Labadia et al., "V-JEPA 2.1: Unlocking Dense Features in Video Self-Supervised Learning", 2026.

    filmstrip train pretraining.vjepa:large_videomix --data.path PATH
    filmstrip train pretraining.vjepa:continue_large --data.path PATH --init vjepa2
    filmstrip train pretraining.vjepa:giant_2_1 --data.path PATH

The loss is the mean absolute error of the predictions to the teacher's features, normalised token by token, at the
masked positions. V-JEPA 2 differs from V-JEPA in its positions (rotary in time, height and width for fixed
sine-cosine vectors), in its schedules (one learning rate, momentum and weight decay throughout, and a cooldown on
longer clips), and in one mask token for both masks. ``encoder`` is the teacher, whose features count. ``--init``
reads the files of both published trainings, with the teacher of their own, and V-JEPA 2's models on the Hub, where
the encoder becomes the teacher too; or goes on from a run of this method, predictor and teacher included.

V-JEPA 2.1 asks for dense features: the loss counts at visible positions too, less the farther they lie from a masked
one; the outputs of four blocks are predicted, from those of four; and images, single frames, have an embedding of
their own. ``--init`` reads its trainings' files, and of its distilled networks (ViT-B, ViT-L) the encoder.

V-JEPA 2's published rotary embeddings pair neighbouring channels and give the two of a pair different frequencies;
the released weights were trained so, and so is ours; V-JEPA 2.1's two share one. Their training code gives mask
tokens by length of clip and not by mask, so that the first of all is the trained one.

Where we deviate: every clip of every batch has the same number of visible and of masked positions, which only the
grid and the blocks decide, so that shapes never change and processes do not matter (published: what the clip with the
fewest in a process's batch has; ours: what all but one clip in 24 have, 24 being the published number for a process).
What is too much is left out at random, position by position through all frames (published: from the end of the clip).
A block's shape is drawn for each clip (published: for a batch). The published schedules are cut off at 80% of their
length: ours end where those do, on curves of the same kind. Gradients are clipped in V-JEPA's warm-up too. Presets of
V-JEPA 2 have the length of its largest training, which the published configurations of the smaller ones do not show;
four frames a second are every seventh of a video of 30. V-JEPA 2.1's images are ImageNet's in its public
configuration, 4608 beside 3072 clips; ours are one frame of each clip, with the same half of the loss. Its public
code scales the rows and columns of the predictor in training and not in its models for ``torch.hub``: ours always
does, which differs for frames of other sizes than 256 pixels.

The public table reports (V-JEPA, attentive probe on the frozen encoder, 16 x 8 x 3 and 16 x 2 x 3 views), ViT-L,
ViT-H and ViT-H at 384 pixels: Kinetics-400 80.8, 82.0, 81.9; Something-Something V2 69.5, 71.4, 72.2. V-JEPA 2:
Something-Something V2 73.7 (ViT-L) and 77.3 (ViT-g at 384 pixels).
"""

from filmstrip.models.vjepa import VJEPAArchitecture, VJEPAEncoder
from filmstrip.systems.pretraining.vjepa.model import VJEPA, VJEPAConfig
from filmstrip.systems.pretraining.vjepa.presets import (
    base_2_1,
    base_2_1_cooldown,
    continue_giant_2_1,
    continue_large,
    giant,
    giant_2_1,
    giant_2_1_cooldown,
    giant_384_cooldown,
    giant_cooldown,
    gigantic_2_1,
    gigantic_2_1_cooldown,
    huge,
    huge_384_videomix,
    huge_cooldown,
    huge_videomix,
    large,
    large_2_1,
    large_2_1_cooldown,
    large_cooldown,
    large_videomix,
    tiny,
    tiny_dense,
)
