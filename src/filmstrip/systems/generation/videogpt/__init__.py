"""VideoGPT: a GPT over the codes that a tokenizer makes of a video.

The tokenizer is frozen; a transformer learns the distribution of its codes in raster order and draws new ones, which
the tokenizer turns into video. Labels and actions move the gains and biases of all norms; given first frames go
through a residual network, whose features every block reads by cross-attention.
Yan et al., "VideoGPT: Video Generation using VQ-VAE and Transformers", 2021; VIPER's presets: Escontrela et al. 2023.

    filmstrip train tokenizers.vqvae3d:bair --data PATH --out runs/codes
    filmstrip train generation.videogpt:bair --data PATH --objective.tokenizer-run runs/codes

The network is that of the published code (tests/parity/test_published_videogpt.py), also where the text differs: the
residual network for first frames has 240 units, as there (table A.2: 512), and sparse attention in the paper's
presets sees near and far in every layer, in blocks of 32 codes. ``--init FILE`` reads released weights, its
VQ-VAE's among them: write the state of a Lightning checkpoint that you trust as safetensors.

Where we deviate: codes have embeddings of their own (published: the codebook's, projected), and the tables of
positions add up (published: the axes share the channels); both can be what is published. Norms have a gain and a bias
of their own beside a condition's, which start at one and zero, and guard against a variance of zero (published: 1e-5
more than its inverse root). Weights start as GPT-2's (published: attention by its width, zero for logits). There is
no dropout inside attention (published: 0.3 where it is not sparse). ``tiny`` has another sparse attention, which
takes turns, layer by layer, between the nearest codes and a stride of whole rows. The action of the first frame,
which lies before the clip, is left out (60 and 315 values for ViZDoom as in the paper, 60 for BAIR instead of 64).
The paper names no schedule: a cosine, as in its code. Its text gives Moving MNIST's transformer 384 features, its
table 192 and 384 between them: the table's. ``condition_drop`` (ours) hides conditions from some clips in training,
so that sampling can be guided, and go without them.

The paper reports, on BAIR, FVD 103.6 and 2.05 bits/dim with 16 layers (2.84, 2.52 and 2.39 bits/dim with 2, 4 and 8).
A dim is a code, ten bits at most for one of 1024; ``bits_per_dim`` counts the same. Measured here (``filmstrip
claims videogpt_depth``, plain moving shapes, 300 steps, mean of three seeds): 2.03, 1.87 and 1.82 bits for a code of
unseen videos with 1, 2 and 4 layers, where each place's own distribution needs 3.71: most of the gain is in the
second layer. On textured motions depth does not show in a few hundred steps, for priors stay long, some longer than
others, at what each place alone gives.
"""

from filmstrip.systems.generation.videogpt.model import VideoGPT, VideoGPTConfig
from filmstrip.systems.generation.videogpt.presets import (
    bair,
    bair_actions,
    moving_mnist,
    tgif,
    tiny,
    ucf101,
    ucf101_128,
    viper_atari,
    viper_dmc,
    viper_rlbench,
    viper_rlbench_multi,
    vizdoom,
    vizdoom_battle,
    vizdoom_health,
)
