"""Published autoencoders of whole clips, as ``diffusers`` has them: frozen, kept by reference, never trained.

Their latents are normalised as the networks that are trained on them expect, so that no factor is needed beside.
Wan's (Wan Team 2025) codes the first frame alone and then four at a time, LTX-Video's (HaCohen et al. 2024) eight,
each from themselves and what came before; runs of ``generation.vdt`` that begin with their pipelines have their
latents from them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.nn.quantise import Bottleneck, Quantised
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.weights.keymap import Weights, check_names

Kind = Literal["AutoencoderKLWan", "AutoencoderKLLTXVideo"]
KINDS: tuple[Kind, ...] = ("AutoencoderKLWan", "AutoencoderKLLTXVideo")
"""Classes of ``diffusers``."""


@dataclass(frozen=True, kw_only=True)
class VideoAutoencoderConfig(ObjectiveConfig):
    """One of these networks, by default Wan 2.1's."""

    kind: Kind = "AutoencoderKLWan"
    """Class of ``diffusers``."""
    settings: tuple[tuple[str, str], ...] = ()
    """Settings of its config.json that differ from the class's defaults, each value as JSON."""

    def of_hub(
        self, config: Mapping[str, Any], statistics: Mapping[str, Any] | None, source: str
    ) -> tuple[VideoAutoencoderConfig, int]:
        """See :meth:`ObjectiveConfig.of_hub`."""
        kind = config.get("_class_name")
        if kind not in KINDS:
            raise UserError(f"{source} is a {kind or 'model of unknown type'}: {', '.join(KINDS)} are known")
        defaults = _defaults(kind)
        if unknown := sorted(name for name in config if name not in defaults and not name.startswith("_")):
            raise UserError(f"{source} has settings that diffusers' {kind} does not know: {', '.join(unknown)}")
        told = {name: json.dumps(config[name]) for name in defaults if name in config}
        differ = {name: value for name, value in told.items() if value != json.dumps(defaults[name])}
        own = replace(self, kind=kind, settings=tuple(differ.items()))
        own.check(source)
        return own, 256

    def arguments(self) -> dict[str, Any]:
        """All settings of the network, by name."""
        return _defaults(self.kind) | {name: json.loads(value) for name, value in self.settings}

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns that one latent stands for."""
        told = self.arguments()
        if self.kind == "AutoencoderKLLTXVideo":
            both = 2 ** sum(told["spatio_temporal_scaling"])
            space = told["spatial_compression_ratio"] or both * told["patch_size"]
            return told["temporal_compression_ratio"] or both, space, space
        space = 2 ** (len(told["dim_mult"]) - 1) * (told["patch_size"] or 1)
        return 2 ** sum(told["temperal_downsample"]), space, space

    def check(self, source: str) -> None:
        """Refuse a network that codes clips in another way.

        Raises:
            UserError: it does.
        """
        told = self.arguments()
        if self.kind == "AutoencoderKLLTXVideo":
            for name, value in (("timestep_conditioning", False), ("encoder_causal", True), ("patch_size_t", 1)):
                if told[name] != value:
                    raise UserError(f"{source} has {name} {told[name]}, and {value} is known here")
            return
        halvings = sum(told["temperal_downsample"])  # spelt so there
        if halvings != 2:  # the network reads four frames at a time, whatever its layers say
            raise UserError(f"{source} halves time {halvings} times, and 2 are known here (temperal_downsample)")
        for name in ("latents_mean", "latents_std"):
            if len(told[name]) != told["z_dim"]:
                raise UserError(f"{source} has {len(told[name])} numbers of {name}, and z_dim is {told['z_dim']}")

    def build(self) -> VideoAutoencoder:
        """Build the network with fresh weights."""
        return VideoAutoencoder(self)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError:
        raise UserError("this autoencoder needs diffusers: pip install 'filmstrip[diffusion]'") from None
    return diffusers


def _defaults(kind: str) -> dict[str, Any]:
    """The settings of a class of ``diffusers`` with their defaults."""
    parameters = inspect.signature(getattr(_diffusers(), kind).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "self"}


class _Unchanged(Bottleneck):
    """Latents as they are."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.input_dim = self.latent_dim = latent_dim

    def forward(self, latents: Tensor) -> Quantised:
        """``B ... D``; there is no loss."""
        return Quantised(latents, None, latents.new_zeros(()), {})


class _Network(nn.Module):
    """The network of ``diffusers`` between our video and normalised latents."""

    frames_apart = False

    def __init__(self, config: VideoAutoencoderConfig) -> None:
        super().__init__()
        told = config.arguments()
        self.network = getattr(_diffusers(), config.kind)(**told).requires_grad_(False).eval()
        self.of_ltx = config.kind == "AutoencoderKLLTXVideo"
        self.scale: float = told["scaling_factor"] if self.of_ltx else 1.0
        self.latent_dim: int = told["latent_channels" if self.of_ltx else "z_dim"]
        self.patch_size = config.patch_size
        if not self.of_ltx:  # whose statistics are among its weights
            self.register_buffer("mean", torch.tensor(told["latents_mean"], dtype=torch.float32), persistent=False)
            self.register_buffer("std", torch.tensor(told["latents_std"], dtype=torch.float32), persistent=False)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' channels."""
        if self.of_ltx:
            return self.network.latents_mean, self.network.latents_std / self.scale
        return self.mean, self.std

    def train(self, mode: bool = True) -> Self:
        """Does nothing: dropout stays off."""
        return self

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Means ``B t h w D`` of the latents of ``B T C H W`` video in 0..1."""
        means = self.network.encode(2 * video.transpose(1, 2) - 1).latent_dist.mode()
        mean, std = self._statistics()
        return (means.movedim(1, -1) - mean) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels ``B T C H W`` in 0..1, to be clamped."""
        mean, std = self._statistics()
        pixels = self.network.decode((latents * std + mean).movedim(-1, 1)).sample
        return (pixels.transpose(1, 2) + 1) / 2


class VideoAutoencoder(TokenizerObjective):
    """One of these networks as a tokenizer. It has no loss: it is a frozen part of other methods."""

    first_alone = True

    def __init__(self, config: VideoAutoencoderConfig) -> None:
        network = _Network(config)
        super().__init__(network, _Unchanged(network.latent_dim))
        self.config = config

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Our names for the weights of the network in ``diffusers``.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        wanted = [name.removeprefix("autoencoder.network.") for name in self.state_dict()]
        check_names(f"this {self.config.kind} of diffusers", theirs, wanted)
        return {f"autoencoder.network.{name}": theirs[name] for name in wanted}
