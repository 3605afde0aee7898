"""LWM: a language model that reads and writes text and videos, the codes of a tokenizer, in one stream of tokens.

A language model of a million tokens of text goes on learning from images, videos and long videos with text, in five
stages of growing length. Frames are 256 codes each of a frozen VQ-GAN, which the model reads from a table and writes
by an output layer of their own; so it describes videos, answers questions about an hour of them, and draws them.
Liu, Yan, Zaharia and Abbeel, "World Model on Million-Length Video and Language with Blockwise RingAttention", ICLR
2025; the stages of text alone are ``language.lwm_text``.

    filmstrip train language.lwm:vision_1k --data IMAGES TEXTS --data.weights 84 16 --init runs/text_1m \\
        --objective.tokenizer-run AMUSED/vqvae --out runs/vision_1k
    filmstrip train language.lwm:vision_8k --data IMAGES VIDEOS TEXTS --data.weights 42 42 16 --init runs/vision_1k \\
        --out runs/vision_8k
    filmstrip generate runs/vision_8k --text "waves on a beach" --frames 8 --out waves.mp4
    filmstrip ask runs/vision_chat_1m film.mp4 "How many lemons are in the car?"

A video is ``<vision>``, the codes of each frame with ``eof`` behind all but the last and ``eov`` behind that, and
``</vision>``: 257 tokens a frame. ``<vision>`` is ordinary text. The network is LLaMA's in ``models/decoder.py`` with
a second vocabulary (``model.py``); streams and what may follow what are in ``stream.py``, data in
``data/kinds/vision_text.py``. Videos and text share rows in which none sees another, and each example counts once.

The paper says only that losses of the two modalities are balanced: as in its code half of the loss is text's and half
vision's, each a mean over examples, those without tokens of the kind included, so that text alone counts half. A
million tokens are 4,080 frames, of which the last stage keeps room for text beside 4,078.

The thesis and the code put ``eov`` before ``</vision>``, and so do we, against a lecture about them; codes have a
vocabulary of their own as in the code (tests/parity/test_published_lwm.py), whose checkpoints ``--init FILE`` reads
if the flat ``params`` are written as safetensors.

Where we deviate: the paper's steps are taken where they do not agree with its numbers of tokens (14,000 steps of 8M
are 112B, not 107B), and 8M are 2^23. Conversations about videos share rows, too, which the paper pads. aMUSEd's
VQ-GAN reads pixels in 0..1, as in its own pipelines; the authors' code feeds its copy -1..1. Videos have as many
frames as the preset says, and frames of shorter ones repeat. Codes are made while training, not beforehand.

The paper reports VQAv2 55.8, GQA 44.8, MSVD 55.9 and MSRVTT 44.1, below systems that see through CLIP, and with the
mask and the weights of packing 55.8 where it is 48.3 without. We measured none of these. At small size (``filmstrip
claims NAME``, three seeds each): 99% of drawn pictures agree with their captions at a guidance of 3, 87% without
(``lwm_guidance``); all of 64 frames answer every question about a moment, eight of them 16% (``lwm_frames``);
without text in the mixture the model of text is lost, 10.8 nats for 0.7, and a sixth of the rows keeps it
(``lwm_text_share``); captions and drawing each need their order of video and text (``lwm_order``).
"""

from filmstrip.systems.language.lwm.model import LWM, LWMConfig, TwoVocabularies, VisionSampling
from filmstrip.systems.language.lwm.presets import (
    tiny,
    tiny_chat,
    vision_1k,
    vision_8k,
    vision_chat_1m,
    vision_chat_32k,
    vision_chat_128k,
)
