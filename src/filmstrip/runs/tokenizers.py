"""Trained tokenizers: from a run folder, as a prior's frozen part, and by the name of their weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.data.sample import Source
from filmstrip.errors import UserError
from filmstrip.inference import device_of
from filmstrip.objectives.elastic import ElasticTokenizer, mean_squared_error
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Objective, Published, TokenizerModule, Tokens, find_tokenizer
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.hub import hub_config, hub_folder, hub_weights, is_on_hub
from filmstrip.runs.loading import load_objective
from filmstrip.runs.run_folder import RunFolder
from filmstrip.video.decode import Backend
from filmstrip.weights.fingerprint import fingerprint
from filmstrip.weights.hub import shards_of

log = logging.getLogger(__name__)


class VideoTokenizer(nn.Module):
    """A trained tokenizer, and how the clips that it codes are cut from files."""

    def __init__(self, tokenizer: TokenizerModule, clip: Clip, backend: Backend = "auto") -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.clip = clip
        self.backend = backend
        self.eval()

    @property
    def codebook_size(self) -> int | None:
        """How many ids there are; none for continuous tokens."""
        return getattr(self.tokenizer, "codebook_size", None)

    @property
    def fingerprint(self) -> str:
        """A short name for the weights that code and decode; a prior's copy of this tokenizer has the same."""
        return tokenizer_fingerprint(self.tokenizer)

    def encode(self, video: Tensor, error: float | None = None) -> Tokens:
        """Code ``B T C H W`` video, ``uint8`` or 0..1; with an ``error``, in the fewest tokens that meet it.

        The error is squared, a block's mean over pixels in 0..1.

        Raises:
            UserError: there is an error to meet, and this tokenizer cannot be told one.
        """
        video = video.to(device_of(self))
        if error is None:
            return self.tokenizer.encode(video)
        if not isinstance(self.tokenizer, ElasticTokenizer):
            raise UserError(
                f"{type(self.tokenizer).__name__} cannot be told an --error to meet: only a tokenizer that looks for "
                "the shortest lengths can, such as tokenizers.elastictok"
            )
        fitted = self.tokenizer.encode_to(video, error, method="binary", bins=100, distance=mean_squared_error)
        return fitted.tokens

    def rows(self, tokens: Tokens) -> Tensor:
        """Tokens as they are written, ``B N D``: latents, or ids with codebooks last, int16 if that holds them."""
        if tokens.ids is None:
            return cast(Tensor, tokens.latents)
        places = tokens.grid.t * tokens.grid.h * tokens.grid.w
        dtype = torch.int16 if (self.codebook_size or 0) <= 2**15 else torch.int32
        return rearrange(tokens.ids, "b (n g) -> b n g", n=places).to(dtype)

    def decode(self, tokens: Tokens) -> Tensor:
        """Rebuild ``B T C H W`` video in 0..1.

        Raises:
            ValueError: the tokens are of another kind or number than this tokenizer's, or outside its codebook.
        """
        return self.tokenizer.decode(tokens)


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """A short name for the weights of a tokenizer that code and decode; what chooses lengths is not among them."""
    coder = getattr(tokenizer, "tokenizer", tokenizer)
    return fingerprint(coder, without=getattr(coder, "training_only", ()))


def load_tokenizer(folder: str | Path, device: torch.device | str | None = None) -> VideoTokenizer:
    """A trained tokenizer from its run folder, or from that of a prior, which owns its own.

    Raises:
        UserError: this is no run folder, or what it holds is no tokenizer.
    """
    objective, run = load_objective(folder, device)
    # A regressor of lengths owns a tokenizer too, but is one itself: it codes in the lengths that it predicts.
    tokenizer = find_tokenizer(objective)
    if tokenizer is None:
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which is no tokenizer: give a run of tokenizers.*"
        )
    return VideoTokenizer(tokenizer, run.data.clip, run.data.backend)


def with_tokenizer(run: Run, folder: Path | None = None) -> Run:
    """This run with the tokenizer of ``objective.tokenizer_run``, if it names one: what its config.json should say.

    Where ``folder`` holds this run already, begun, it is asked instead: the tokenizer's run is not needed any more.

    It may also be the run of a prior, which owns one, or an autoencoder in the layout of ``diffusers``.

    Raises:
        UserError: that is neither, or it has no tokenizer.
    """
    objective = run.objective
    if not isinstance(objective, LatentConfig) or objective.tokenizer_run is None:
        return run
    if folder is not None and RunFolder.is_begun(folder):
        begun = read_config(folder / CONFIG).objective
        if isinstance(begun, LatentConfig) and begun.tokenizer_run == objective.tokenizer_run:
            return replace(run, objective=replace(objective, tokenizer=begun.tokenizer))
    source = objective.tokenizer_run
    if _is_of_hub(source):
        shards_of(source, hub_folder(source))  # weights that lack are said before anything is decoded
        return replace(run, objective=objective.with_tokenizer_of_hub(hub_config(source), source))
    tokenizer = read_config(Path(source) / CONFIG).objective
    if isinstance(tokenizer, LatentConfig):  # a prior's run, which owns one
        tokenizer = tokenizer.tokenizer
    if tokenizer is None:
        raise UserError(f"{objective.tokenizer_run} has no tokenizer: give a run of tokenizers.*")
    return replace(run, objective=replace(objective, tokenizer=tokenizer))


def _is_of_hub(source: str) -> bool:
    """Whether a model in the Hub's layout is named, rather than a run."""
    return not is_run(source) and (is_on_hub(source) or (Path(source) / CONFIG).exists())


def start_tokenizer(objective: Objective, run: Run) -> None:
    """Load the frozen tokenizer's weights from ``run.objective.tokenizer_run``.

    Raises:
        UserError: that run has no weights yet, or they do not fit; or no run is named, and it was not said that the
            tokenizer may be untrained.
    """
    learner = getattr(run.objective, "learner", None)
    if isinstance(learner, LatentConfig):
        if run.init is None and not learner.untrained_tokenizer:
            raise UserError(
                "the tokenizer is untrained, and codes of noise are nothing to learn from: name a pretrained run, "
                "which holds one (--init RUN)"
            )
        return
    if not isinstance(run.objective, LatentConfig) or run.objective.tokenizer is None:
        return
    folder = run.objective.tokenizer_run
    if folder is None:
        in_parts = any(hasattr(objective, part) for part in ("encoder", "predictor"))
        # What all weights come from had a tokenizer; a file of latent diffusion's is a U-Net alone.
        if run.init and not in_parts and (is_run(run.init) or not run.objective.continuous):
            return
        if not run.objective.untrained_tokenizer:
            raise UserError(
                "the tokenizer is untrained, and codes of noise are nothing to model: name the run of a trained one "
                "(--objective.tokenizer-run FOLDER), or ask for this (--objective.untrained-tokenizer)"
            )
        log.warning("the tokenizer is untrained: name a trained one with --objective.tokenizer-run FOLDER")
        return
    parts = run.objective.frozen_parts().items()
    own = objective.get_submodule(next(name for name, part in parts if part.setting == "objective.tokenizer_run"))
    if _is_of_hub(folder):
        assert isinstance(own, Published), "its config.json was read"
        try:
            own.load_state_dict(own.from_published(hub_weights(folder)), strict=False)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        except RuntimeError as error:
            raise UserError(f"{folder} has weights of other shapes than its config.json says: {error}") from None
        return
    run_there, _ = load_objective(folder, "cpu")
    given = getattr(run_there, "tokenizer", run_there).state_dict()
    own.load_state_dict({name: given[name] for name in own.state_dict()})


def check_tokenizer(objective: Objective, source: Source) -> None:
    """See that cached tokens are those of the tokenizer that a prior holds.

    Raises:
        UserError: another tokenizer, or one with other weights, made them.
    """
    tokenizer = find_tokenizer(objective)
    if source.tokenizer is None or tokenizer is None:
        return
    if tokenizer_fingerprint(tokenizer) != source.tokenizer:
        raise UserError(
            f"the tokens in {source.root} were made by another tokenizer than the one that this run decodes with: "
            "name theirs (--objective.tokenizer-run FOLDER)"
        )
