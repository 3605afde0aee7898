"""ElasticTok: video becomes blocks of tokens, more of them where more is going on.

A transformer autoencoder is trained with only the first tokens of each block, a random number of them, so that what
matters most moves to the front. Afterwards every block may be cut short wherever the rest is good enough: at a given
length, or at the least that meets a given error, found by search. Long videos are sequences of blocks that see those
before them.
Yan et al., "ElasticTok: Adaptive Tokenization for Image and Video", ICLR 2025; as in Wilson Yan's dissertation
(chapter 4, appendix C).

    filmstrip train tokenizers.elastictok:continuous --data.path PATH --objective.perceptual vgg16.pth lpips_vgg.pth

``continuous`` and ``discrete`` are the first stage on video, single blocks; those that follow end in their number of
blocks, up to 256 (1,024 frames). A stage starts from the one before it with ``--init RUN``: there are no weights that
depend on the number of blocks. ``continuous_image`` and ``discrete_image`` are the models of pictures alone.

Where we deviate: the perceptual error is of one frame of every clip, at its own size (published: of one frame of one
block of the batch's clips, at 224 pixels). A block keeps as many tokens as were drawn, up to all of them (published:
one more). Lengths tried in bins are spaced evenly (published: by ratios), and binary search gives the least length
found to meet the target (published: the last one tried). A still is a block whose first frame stays, and stills of
one clip see those before them. Betas and decay of the learning rate are not stated: AdamW's usual ones and none.
Errors and targets are of pixels in 0..1, a quarter of the published ones in -1..1. Perplexity is that of kept tokens.

The paper reports 1.3 to 5 times fewer tokens than tokenizers of fixed length for as many blocks to meet an error (in
its table 4.2, at equal worst error, 1.04, 1.54 and 1.60 times where 50, 88 and 99% meet it), a Pearson correlation of
0.77 between a block's tokens and its Sobel energy, and binary search 7% off in 12 evaluations. Measured here
(``filmstrip claims elastictok_busy``, mazes at 32 x 32, 300 steps, mean of three seeds): correlations of 0.45, 0.69
and 0.61, and 0.73, 1.27 and 2.59 times fewer tokens, at errors that 25, 74 and 94% of the blocks met; binary search
0.3% off at the middle one, and 12 evaluations of 4,096 lengths. So strict errors save nothing, in the paper little: a
block that no length is enough for takes all tokens for nothing (80% of the tokens at the strict error), and training
for every length costs accuracy at the longest.
"""

from filmstrip.systems.tokenizers.elastictok.model import (
    BlockTransformer,
    ElasticAutoencoder,
    ElasticTok,
    ElasticTokConfig,
    Past,
)
from filmstrip.systems.tokenizers.elastictok.presets import (
    continuous,
    continuous_2,
    continuous_4,
    continuous_16,
    continuous_64,
    continuous_128,
    continuous_256,
    continuous_image,
    discrete,
    discrete_2,
    discrete_4,
    discrete_16,
    discrete_64,
    discrete_128,
    discrete_256,
    discrete_image,
    tiny,
)
