"""InternVideo2.5: long videos in few tokens, by merging what is alike and dropping what a question does not ask for.

Four frames at a time, an encoder's tokens are merged with the most similar ones until 16 for each frame are left. In
the language model half of these stay after block 8 (evenly spaced ones), a quarter after block 16 and an eighth after
block 24, those that the last token of the question attends to most: later blocks compute and remember no others. The
authors call both HiCo, hierarchical compression. Wang et al., "InternVideo2.5: Empowering Video MLLMs with Long and
Rich Context Modeling", 2025; after the code of Li et al., "VideoChat-Flash: Hierarchical Compression for Long-Context
Video Modeling", 2025.

    filmstrip train language.internvideo2_5:chat_8b --data DIALOGUES.json \\
        --objective.decoder-run INTERNLM --data.reads.tokenizer INTERNLM --objective.encoder-run ENCODER

Merging is in ``nn/token_merging.py``, dropping in ``dropping.py``. ``connector.how`` pools or strides instead, for
comparison.

Where we deviate: what stays keeps its positions (there they close up, also in generation); the last visual token
always stays, since text goes on from it; of several turns the first question chooses in training; frames are spread
over the whole video, as many whatever its length; batch size and length of conversations are ours. Task preference
optimisation is left out: the text does not say what is optimised.

The paper reports, for 7B: MVBench 75.7, Perception Test 74.9, EgoSchema 63.9, LongVideoBench 60.6, MLVU 72.8,
Video-MME 65.1, LVBench 46.4. ``filmstrip claims internvideo25_hico`` asks whether a short event survives.
"""

from filmstrip.systems.language.internvideo2_5.dropping import Dropping, DroppingDecoder
from filmstrip.systems.language.internvideo2_5.model import (
    Compression,
    CompressionConfig,
    InternVideo25,
    InternVideo25Config,
)
from filmstrip.systems.language.internvideo2_5.presets import chat_8b, tiny
