"""Video-LLaMA 2: convolutions in space and time, instead of queries, reduce a clip's tokens for a language model.

Blocks of RegNet refine each frame's tokens, one 3D convolution whose stride is its kernel reduces time, height and
width by two, and blocks and layers follow: order is kept, and the number of tokens is known in advance. First the
connector learns from captions, then it and the language model from conversations. Cheng et al., "VideoLLaMA 2:
Advancing Spatial-Temporal Modeling and Audio Understanding in Video-LLMs", 2024.

    filmstrip train language.video_llama2:mistral_7b_stage1 --data CAPTIONS.json --objective.encoder-run CLIP \\
        --objective.decoder-run MISTRAL --data.reads.tokenizer MISTRAL
    filmstrip train language.video_llama2:mistral_7b_stage2 --data DIALOGUES.json --init RUN ...

The connector is in ``connector.py``. The released one of version 2 pads its 3D convolution by one on every side (8
frames of 24 x 24 tokens become 845); ours does not, as that of version 2.1.5 (``STCConnectorV35``): 576, the paper's
number. Its 489M parameters are more than the text's "lightweight" lets one expect.

Where we deviate: there is no audio; frames are cropped to a square, not padded to one; frames that do not fill a
kernel repeat the last. Conversations are in Vicuna's format (published: Mistral's; ``--data.reads.format hub``).

The paper reports, for 7B and 16 frames: EgoSchema 51.7, Perception Test 51.4, MVBench 54.6; of connectors at 8
frames, as the mean of MVBench, EgoSchema and ActivityNet-QA: this one 45.1 with 576 tokens, 2D pooling 44.4 with
1152, the 3D convolution without blocks 43.1 with 576.
"""

from filmstrip.systems.language.video_llama2.connector import SpaceTimeConv, SpaceTimeConvConfig
from filmstrip.systems.language.video_llama2.presets import (
    VideoLlama2Config,
    mistral_7b_stage1,
    mistral_7b_stage2,
    tiny,
)
