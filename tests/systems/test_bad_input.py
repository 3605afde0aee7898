"""What no tokenizer or prior can use is refused with a sentence that says what was given and what was expected."""

import re

import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.protocols import Tokens

INFO = DataInfo(classes=tuple("abcdefgh"), num_train=8, directional=True)
TOKENIZERS = [name for name in systems.names() if name.startswith("tokenizers.")]
PRIORS = [name for name in systems.names() if name.startswith("generation.")]
REFUSED = (UserError, ValueError)


def built(name):
    run = systems.find(f"{name}:tiny").bound(INFO)
    torch.manual_seed(0)
    return run.objective.build().eval(), run.data.clip


def batch_of(clip, *, channels=3, frames=None, size=None, **more):
    shape = (1, frames or clip.num_frames, channels, size or clip.size, size or clip.size)
    return {
        "video": torch.zeros(shape, dtype=torch.uint8),
        "label": torch.zeros(1, dtype=torch.int64),
        "seed": torch.zeros(1, dtype=torch.int64),
    } | more


def refuses(call, *said):
    with pytest.raises(REFUSED) as caught, torch.no_grad():
        call()
    for word in said:
        assert re.search(word, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", TOKENIZERS + PRIORS)
def test_clips_of_the_wrong_kind(name):
    objective, clip = built(name)
    refuses(lambda: objective(batch_of(clip, channels=1)), r"3, H, W\)", r"\(1, \d+, 1, ")
    refuses(lambda: objective({**batch_of(clip), "video": torch.zeros(3, 32, 32)}), r"\(3, \d+, 32\)")
    refuses(lambda: objective(batch_of(clip, size=clip.size + 1)), str(clip.size + 1))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_that_a_tokenizer_did_not_make(name):
    objective, clip = built(name)
    if not hasattr(objective, "decode"):
        pytest.skip("does not decode")
    with torch.no_grad():
        tokens = objective.encode(batch_of(clip)["video"])
    refuses(lambda: objective.encode(batch_of(clip, channels=4)["video"]), "3, H, W")
    if tokens.ids is None:
        refuses(lambda: objective.decode(Tokens(tokens.grid, latents=tokens.latents[:, 1:])), "expected latents")
        refuses(lambda: objective.decode(Tokens(tokens.grid, ids=torch.zeros(1, 4).long())), "latents")
        return
    for wrong in (objective.codebook_size, -1):
        ids = tokens.ids.clone()
        ids[0, -1] = wrong
        refuses(lambda ids=ids: objective.decode(Tokens(tokens.grid, ids=ids)), r"0\.\.\d+", str(wrong))
    refuses(lambda: objective.decode(Tokens(tokens.grid, ids=tokens.ids[:, 1:])), "expected ids")


# Latent FDM numbers frames by their distances, and takes longer and larger clips.
@pytest.mark.parametrize("name", [name for name in PRIORS if name != "generation.latent_fdm"])
def test_more_than_a_prior_has_positions_for(name):
    objective, clip = built(name)
    refuses(lambda: objective(batch_of(clip, frames=2 * clip.num_frames)), "positions", "objective.num_frames")
    refuses(lambda: objective(batch_of(clip, size=2 * clip.size)), "positions", "objective.size")
    if getattr(objective, "codebook_size", None) is None or not hasattr(objective, "grid"):
        return
    places = objective.grid.t * objective.grid.h * objective.grid.w * objective.num_codebooks
    ids = torch.zeros(1, places, dtype=torch.int64)
    refuses(lambda: objective({**batch_of(clip), "tokens": ids[:, 1:]}), f"{places}")
    for wrong in (objective.codebook_size, -1):
        refuses(lambda w=wrong: objective({**batch_of(clip), "tokens": ids + w}), r"0\.\.\d+", str(wrong))
