"""Latent FDM: diffusion of any frames of a video given any others; long videos are made in stages, by a schedule.

One network sees K frames at once, some of them clean and the others noised, each with its number in the video:
training draws which, so that sampling may choose. A schedule says which frames are made next, and from which.
Harvey et al., "Flexible Diffusion Modeling of Long Videos", NeurIPS 2022, on a tokenizer's latents as the diffusion
baseline of TECO (Yan et al., "Temporally Consistent Transformers for Video Generation", ICML 2023; thesis chapter 3
and appendix B, tables B.15 to B.17).

    filmstrip train generation.latent_fdm --out runs/fdm
    filmstrip train generation.latent_fdm:dmlab --data.path PATH --objective.tokenizer-run VAE --out runs/dmlab
    filmstrip generate runs/fdm --condition clip.mp4 --context-frames 4 --frames 40 --out long.mp4
    filmstrip generate runs/fdm --condition clip.mp4 --given 0 11 --sampling.schedule hierarchy_2 --out between.mp4

The frames that are drawn in training, the schedules and the network (the levels of ``models/video_unet.py``, with
relative positions along time) are those of the published code, which is for pixels; the process is that of
``objectives/diffusion.py``. Presets are the thesis': a rate of 1e-4 by a cosine after 10,000 steps, batches of 32, a
million steps, clips of 300, 200, 100 or 50 frames, all of which are seen at once. It tells neither the noise nor the
steps of sampling; these are the published ones, a thousand times. Its sizes (31, 33, 87 and 831 M for DMLab,
Minecraft, Habitat and Kinetics) do not follow from its layers, which have 26, 44, 138 and 1,220 M here: of two rows
that differ in the number of blocks alone (50 frames, tables B.16 and B.17) the one with more has 110 M and the other
186 M.

Where we deviate: padding, which makes all rows K frames, is of the same clip (published: of another); at most 12
groups of frames are drawn (published: until one does not fit, for ever where K is the whole clip); steps of sampling
have the smaller of the usual two variances, and latents are not clipped (published: the larger one, of pixels that
are); weights do not decay, as published. Actions, of which the thesis does not say how this model is told them, are
added to the time's vector of each frame: the mean of those since the frame that is seen before it. Adaptive
schedules, which choose what is seen by LPIPS, are left out, and so are hierarchies of more than two levels.

The paper reports, on DMLab: FVD 181, PSNR 17.8, SSIM 0.588, LPIPS 0.222 (TECO: 48, 21.9, 0.703, 0.157); on Minecraft
3,606 ms to sample a frame, where TECO takes 186.
"""

from filmstrip.systems.generation.latent_fdm.model import (
    FDMSampling,
    LatentFDM,
    LatentFDMConfig,
)
from filmstrip.systems.generation.latent_fdm.presets import (
    dmlab,
    dmlab_50,
    dmlab_100,
    dmlab_200,
    habitat,
    kinetics600,
    minecraft,
    minecraft_50,
    minecraft_100,
    minecraft_200,
    tiny,
)
