"""TECO: a few codes say what is new in a frame; a transformer over few tokens a frame remembers hundreds of frames.

An encoder codes each frame given the one before, into codes of unit length; a causal transformer over strided codes
summarises the past; a masked transformer fills the next frame's codes from the summary, and a decoder turns both
into the frame. Prior and decoder train on a random few frames only (DropLoss).
Yan et al., "Temporally Consistent Transformers for Video Generation", ICML 2023; thesis chapter 3 and appendix B.

    filmstrip train generation.teco:dmlab --data.path PATH --objective.tokenizer-run RUN

The prior of z_t sees the summary of z_<t (and the action that leads to frame t); the first frame's z_1 is the
encoder's output, not quantised. The networks and the loss are those of the published code
(tests/parity/test_published_teco.py): codes of 32 channels are projected to ``latent_dim``, a frame is learnt that
stands before the first one, and so are the tokens that start the temporal transformer's sequence, which every frame
sees; the loss is in nats a frame, labels are smoothed, actions have 16 channels; AdamW's second beta is 0.95, and
gradients are not clipped. The text does not give ``latent_dim``: we take those with which the networks have the
stated sizes within 1%. The published configurations have 64, 128, 256 and 256, with 6 blocks in Minecraft's decoder
where the text has 8, and 2048 codes for Habitat's 1024 (173 and 271 M for the first two); ``--init
FILE`` reads weights of any of them, written as safetensors with the names of a flattened tree, and so do the presets
of ``tokenizers.vqgan`` for their tokenizers. ``dmlab_200`` and so on are the text's for
shorter clips at equal cost (its tables B.13 and B.14). Minecraft's printed sizes there, 261, 257 and 140 M, do not
follow from the printed layers, which have 267, 265 and 164 M: of the last the transformers and the decoder's
convolutions alone make 142 M, and the encoder's 20 more.

Where we deviate: frames of DropLoss are drawn for each clip, without repeats (published: the same for all clips, with
repeats, and one past the end counts as the last); the masked share of a frame is rounded up (published: down); the
prior's positions add up (published: the axes share the channels), which can be what is published. Codes start with
length one (published: about 0.1). Without actions nothing stands in their place (published: the embedding of action
0). DMLab's actions are those that lead to a frame (published: those done after it, as its files have them). We revise
half of the codes at a time, as the text has it (published: an eighth), and stop where the positions end (published:
the window moves on).

The paper reports, on DMLab: FVD 48, PSNR 21.9, SSIM 0.703, LPIPS 0.157; on 16 frames of Something-Something a
training step of 125 ms with DropLoss at 0.8 and 182 ms without; on Minecraft 186 ms to sample a frame against 8,443
of Perceiver AR. Measured here (one thread): ``filmstrip claims teco_droploss`` (DMLab's network an eighth as wide,
300 frames), 1.8 s a step with a tenth of the frames and 6.9 s with all; ``filmstrip claims teco_sampling`` (17 M
parameters, one clip, 300 frames), 231 ms a frame, 59 times faster on average than a cached autoregressive transformer
as wide and deep.

What does not reproduce is memory. ``filmstrip claims teco_consistency`` (mazes of 16 x 16 pixels, 96 frames, 60
steps, mean of three seeds): whole walks and clips of 8 frames in a sliding window both give 16.20 dB in frames that
show again what was given more than 8 frames before. Nor did it in an earlier, longer form (400 steps, one seed),
before the networks had all of the published form: in 395 frames that show again what was given more than 8 frames
before, of 16 walks, whole walks give 15.75 dB and clips of 8 frames in a sliding window 15.82 (difference -0.08,
standard error over walks 0.05; repeating the last frame 13.61). Both have learnt to move what they see (loss 465 and
461 nats a frame), and neither to look back: the paper trains for a million steps. Walks must be long: within 64
frames only 2% of the last 24 show again what the first 40 did, within 96 frames 73% of the last 32. Nor where one
turns on the spot and everything was seen a turn ago (64 frames, of which 40 are given): 14.30 dB against 14.29.
"""

from filmstrip.systems.generation.teco.model import (
    TECO,
    TECOConfig,
)
from filmstrip.systems.generation.teco.presets import (
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
