"""Toto on pixels: the transformer reads patches, and predicts the next patch or its code (Table 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate
from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.patches import PatchEmbed, patchify
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.latent import CodedVideo, LatentConfig
from filmstrip.objectives.targets import normalise_tubelets
from filmstrip.protocols import Batch, Features, Grid, Loss, Objective, TokenizerModule, as_float, check_video
from filmstrip.systems.pretraining.toto.model import IMAGES, SPECIALS, VIDEO


class PatchEncoder(nn.Module):
    """A linear embedding of patches and the transformer: features of every patch, each of those up to its own."""

    any_grid = True

    def __init__(self, config: TotoPatchesConfig, codebook_size: int) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depth
        self.patch_size = (1, config.patch_size, config.patch_size)
        self.embed = PatchEmbed(config.width, self.patch_size)
        self.decoder = Decoder(
            DecoderConfig(
                vocab_size=SPECIALS + codebook_size,
                width=config.width,
                depth=config.depth,
                num_heads=config.num_heads,
                mlp_dim=config.mlp_dim,
                tied=True,
                rope_base=config.rope_base,
            )
        )

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Features of ``B T C H W`` video of any length and of any size that the patches tile.

        A clip of one frame is read as an image.
        """
        hidden, outputs = self.run(video, layers=layers)
        t, h, w = (n // p for n, p in zip((video.shape[1], *video.shape[3:]), self.patch_size))
        return Features(hidden[:, 1:], Grid(t, h, w), tuple(layer[:, 1:] for layer in outputs))

    def run(
        self, video: Tensor, images: Tensor | None = None, *, layers: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The transformer's outputs at the start token and at all patches, ``B N+1 D``, and those of all layers.

        ``images`` (``B``, bool) tells rows of unrelated images from videos; one frame is an image.

        Raises:
            ValueError: patches do not tile the video.
        """
        check_video(video, multiple=self.patch_size)
        start = torch.full((len(video),), IMAGES if video.shape[1] == 1 else VIDEO, device=video.device)
        if images is not None:
            start = torch.where(images, IMAGES, start)
        sequence = torch.cat([self.decoder.embed(start)[:, None], self.embed(as_float(video))], dim=1)
        made = self.decoder(sequence, layers=layers)
        return made.hidden, made.layers


class TotoPatches(Objective):
    """Squared error of the next patch, normalised by its own mean and variance; or cross-entropy of its code."""

    starts_whole = True  # its output layer, and its tokenizer, are beside the encoder

    def __init__(self, config: TotoPatchesConfig, coder: CodedVideo | None) -> None:
        super().__init__()
        self.coder = coder
        self.encoder = PatchEncoder(config, 0 if coder is None else coder.codebook_size)
        self.out = nn.Linear(config.width, 3 * config.patch_size**2) if coder is None else None

    @property
    def tokenizer(self) -> TokenizerModule | None:
        """The frozen tokenizer, where codes are predicted."""
        return None if self.coder is None else self.coder.tokenizer

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean squared error of normalised pixels, or nats per code."""
        return self.loss_and_layers(batch, layers=False)[0]

    def loss_and_layers(self, batch: Batch, *, layers: bool = True) -> tuple[Loss, tuple[Tensor, ...]]:
        """The same, and the tokens of every layer at the patches; see
        :class:`~filmstrip.protocols.LayeredLearner`."""
        video = as_float(batch["video"])
        hidden, outputs = self.encoder.run(video, batch.get("images"), layers=layers)
        predicting, outputs = hidden[:, :-1], tuple(layer[:, 1:] for layer in outputs)
        if self.coder is None:
            assert self.out is not None, "without codes there is an output layer of pixels"
            target = normalise_tubelets(patchify(video, self.encoder.patch_size)).flatten(2)
            return Loss(F.mse_loss(self.out(predicting).float(), target), {}), outputs
        codes = self._codes(self.coder, video)
        logits = self.encoder.decoder.logits(predicting)[..., SPECIALS:].float()
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        return Loss(nats, {"perplexity": nats.detach().exp()}), outputs

    def _codes(self, coder: CodedVideo, video: Tensor) -> Tensor:
        """The code of every patch, ``B N``: the tokenizer sees frames of as many codes as there are patches."""
        tile, patch = coder.tokenizer.patch_size[1], self.encoder.patch_size[1]
        size = [side // patch * tile for side in video.shape[3:]]
        if size != list(video.shape[3:]):
            frames = F.interpolate(video.flatten(0, 1), size=size, mode="area")
            video = frames.unflatten(0, video.shape[:2])
        ids = coder.codes({"video": video}).ids
        assert ids is not None, "it has a codebook"
        return ids

    def depth_of(self, name: str) -> int:
        """The embeddings, the blocks in order, then the last norm and the output layer."""
        if name.startswith("encoder.decoder.blocks."):
            return 1 + int(name.split(".")[3])
        return 0 if ".embed." in name else self.encoder.depth + 1


@dataclass(frozen=True, kw_only=True)
class TotoPatchesConfig(LatentConfig):
    """Sizes of the transformer and its patches, and what it predicts of them."""

    tokenizer: ObjectiveConfig | None = None
    """Tokenizer whose codes are predicted; none predicts normalised pixels."""
    targets: Literal["patches", "codes"]
    """Targets: the pixels of the next patch, or its code."""
    patch_size: Count = 16
    """Height and width of a patch, in pixels."""
    width: Count
    """Dimension of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Number of attention heads."""
    mlp_dim: Count
    """Inner width of the feed-forward networks."""
    rope_base: Rate = 10_000.0
    """Base of the wavelengths of rotary embeddings."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, where there is a trained one."""
        return {} if self.tokenizer is None else {"coder.tokenizer": FrozenPart("objective.tokenizer_run")}

    def build(self) -> TotoPatches:
        """Build everything with fresh weights.

        Raises:
            UserError: the size is no multiple of the patches; codes are to be predicted and there is no tokenizer of
                single frames with one codebook, or the other way around.
        """
        if self.size % self.patch_size:
            raise UserError(f"frames of {self.size} pixels are no multiple of patches of {self.patch_size}")
        if (self.targets == "codes") != (self.tokenizer is not None):
            raise UserError(
                "objective.targets codes needs a tokenizer, and patches needs none: give objective.tokenizer, or not"
            )
        if self.tokenizer is None:
            return TotoPatches(self, None)
        tokenizer = self.build_tokenizer()
        if not tokenizer.frames_apart or tokenizer.bottleneck.num_codebooks != 1:
            raise UserError(
                f"Toto needs a tokenizer that codes frames one by one, with one codebook, and "
                f"{type(self.tokenizer).__name__} does not: give tokenizers.dvae or tokenizers.vqgan"
            )
        size = self.size // self.patch_size * tokenizer.patch_size[1]
        return TotoPatches(self, CodedVideo(tokenizer, num_frames=self.num_frames, size=size))
