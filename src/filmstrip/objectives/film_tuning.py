"""Editing by a network that is first trained on the one video that is to be edited.

The network is as it was after an edit. What a video's training found is kept until another one is edited, so that
candidates and other texts for the same video share it: it depends on the video and on the text of what it shows, and
on no seed of the edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from filmstrip.bounds import CountOrZero, Rate, check_numbers
from filmstrip.objectives.latent_diffusion import Known, LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import VideoEdit
from filmstrip.settings import FREE

_LONGEST_GRADIENT = 1.0  # as Tune-A-Video's authors clip


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Training on one video."""

    steps: CountOrZero = 500
    """Number of steps, each of the whole video, noised to one time."""
    lr: Rate = 3e-5
    """Learning rate of AdamW."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class FilmTunedConfig(LatentDiffusionConfig):
    """Text to video, and training on the video to edit."""

    tuning: Tuning = field(default_factory=Tuning, metadata=FREE)
    """Training on the video to edit, unless it is said otherwise."""


@dataclass
class _Film:
    """What training on a video found."""

    given: tuple[Tensor, ...]
    tuning: Tuning
    weights: dict[str, Tensor]

    def is_of(self, given: tuple[Tensor, ...], tuning: Tuning) -> bool:
        same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(self.given, given))
        return same and tuning == self.tuning


class FilmTuned(LatentDiffusion):
    """Trains on each video before it edits it; methods say which weights, by what loss, and how they edit then."""

    reads_source_text = True
    config: FilmTunedConfig

    def __init__(self, config: FilmTunedConfig) -> None:
        super().__init__(config)
        self._film: _Film | None = None

    def tuned_rows(self) -> Mapping[str, int]:
        """The U-Net's parameters that a video trains, by name, and how many of their first rows."""
        return {name: len(p) for name, p in self.unet.named_parameters()}

    def tune(self, latents: Tensor, known: Known, seeds: Tensor) -> None:
        """Add the gradients of one step on a video's latents ``1 T D h w``, of which its text is ``known``; all that
        is random is drawn from ``seeds`` (``1``)."""
        self.add_loss(latents, known, seeds, "clip")

    def add_loss(self, latents: Tensor, known: Known, seeds: Tensor, use: str, weight: float = 1.0) -> None:
        """Add the gradients of the mean loss of noised clips ``B T D h w``; times and noise are drawn from ``seeds``
        (``B``) under the name of their ``use``."""
        absent = {"text": torch.zeros_like(seeds, dtype=torch.bool)}
        losses, _ = self.diffusion.losses(
            lambda x, time: self.run(known, x, time, absent, None), latents, seeds, f"{self.name}.tuning.{use}"
        )
        (weight * losses.mean()).backward()

    def edit_tuned(self, edit: VideoEdit, latents: Tensor) -> Tensor:
        """Edited latents of a video's own (``1 T D h w``), by the network that was trained on it."""
        raise TypeError(f"{type(self).__name__} does not define edit_tuned()")

    @torch.inference_mode(False)  # gradients are needed
    @torch.no_grad()
    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1; see :class:`~filmstrip.protocols.VideoEditor`."""
        return torch.cat([self._edit(one) for one in edit.rows()])

    def _edit(self, edit: VideoEdit) -> Tensor:
        latents = self.latents(edit.video)
        known = self.told(self.read(edit.source_text, edit.source_length))
        with self.tuned(latents, known, edit.tuning or self.config.tuning):
            return self.pixels(self.edit_tuned(edit, latents))

    @contextmanager
    def tuned(self, latents: Tensor, known: Known, tuning: Tuning) -> Iterator[None]:
        """Train on a video, or take up what is known of it; the U-Net's weights are restored afterwards."""
        rows = self.tuned_rows()
        parts = {name: p for name, p in self.unet.named_parameters() if name in rows}
        before = {name: p.detach().clone() for name, p in parts.items()}
        given = (latents, known.context)
        try:
            if self._film is None or not self._film.is_of(given, tuning):
                self._film = None
                _descend(self.unet, parts, rows, tuning, lambda seeds: self.tune(latents, known, seeds))
                self._film = _Film(given, tuning, {name: p.detach().clone() for name, p in parts.items()})
            else:
                _copy(parts, self._film.weights)
            yield
        finally:
            _copy(parts, before)


@torch.no_grad()
def _copy(parts: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in parts.items():
        parameter.copy_(weights[name])


def _descend(
    network: nn.Module,
    parts: Mapping[str, nn.Parameter],
    rows: Mapping[str, int],
    tuning: Tuning,
    backward: Callable[[Tensor], None],
) -> None:
    """Steps of AdamW on some rows of parameters, by the gradients that ``backward`` adds, given a step's seed."""
    wanted = {name: p.requires_grad for name, p in network.named_parameters()}
    device = next(network.parameters()).device
    # No decay: it would change rows that are not trained.
    optimiser = torch.optim.AdamW(parts.values(), lr=tuning.lr, weight_decay=0.0)
    try:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in parts)
        for step in range(tuning.steps):
            optimiser.zero_grad()
            with torch.enable_grad():
                backward(torch.tensor([step], device=device))
            for name, parameter in parts.items():
                if parameter.grad is not None:
                    parameter.grad[rows[name] :] = 0
            nn.utils.clip_grad_norm_(parts.values(), _LONGEST_GRADIENT)
            optimiser.step()
    finally:
        optimiser.zero_grad()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(wanted[name])
