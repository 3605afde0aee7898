"""VDT: a diffusion transformer of video that is given any part of a clip, and makes the rest.

One network generates, predicts, interpolates and completes: in training a random part of a clip's latents is given,
clean, in place of the noised ones, and in sampling whichever part is known. Blocks attend along time, then within
frames. Lu et al., "VDT: General-purpose Video Diffusion Transformers via Mask Modeling", ICLR 2024.

    filmstrip train generation.vdt --out runs/vdt
    filmstrip generate runs/vdt --condition clip.mp4 --context-frames 2 --out predicted.mp4
    filmstrip generate runs/vdt --condition clip.mp4 --given 0 7 --out between.mp4

With ``--init FOLDER`` it begins with a published text-to-video model in the layout of ``diffusers`` (Latte: Ma et al.
2024; Wan 2.1: Wan Team 2025; LTX-Video: HaCohen et al. 2024), whose parts say their sizes, what is noised and how
texts are read; ``--lora`` learns products of low rank beside its layers from captioned clips, and the pipeline can be
written again with what was learnt (docs/text_to_video.md):

    filmstrip train generation.vdt:wan --init FOLDER --lora --data captioned_clips --out runs/mine
    filmstrip generate runs/mine --text "a boat on the sea" --out boat.mp4
    filmstrip export runs/mine --format diffusers --out pipeline

The transformer is in ``models/video_dit.py``, the process in ``objectives/diffusion.py``, and what is around a
network of latents in ``objectives/noised_latents.py``. ``--init FILE`` begins with weights that the authors released.

Sizes, masks and noise are those of the published code; it has no training, and the texts here none of the paper's
figures, so that rates, batches and averaging are those of DiT (Peebles & Xie 2023). Where we deviate: the error is
averaged over what is not given (published: over everything), and what is completed is one rectangle of half a frame
(published: several that cover as much). Outputs for the noise's variance, which published networks have, are neither
learnt nor read: sampling is DDIM's. The published embedding of one class is part of the time's bias.
"""

from filmstrip.systems.generation.vdt.model import PUBLISHED, VDT, GuidedSampling, Task, VDTConfig, draw_given
from filmstrip.systems.generation.vdt.presets import large_256, latte, ltx, small_256, tiny, tiny_text, wan
