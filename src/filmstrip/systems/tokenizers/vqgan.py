"""VQ-GAN: each frame becomes a small grid of codes, decoded to something that looks right.

A convolutional autoencoder with a codebook, trained by absolute and perceptual error against a patch discriminator
whose weight adapts to the errors' gradient. Videos are coded frame by frame.
Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021; the presets are those of TECO (Yan
et al. 2023, appendix B.14) and VIPER (Escontrela et al. 2023, table E.1).

    filmstrip train tokenizers.vqgan:dmlab --data.path PATH --objective.perceptual vgg16.pth lpips_vgg.pth

The network is that of the code that TECO's authors published (tests/parity/test_published_vqgan.py), which loads such
VQ-GANs and does not train them. ``--init FILE`` begins with their weights, written as safetensors with the names of
``flax.traverse_util.flatten_dict(..., sep="/")``, or with those of a ``VQModel`` of ``diffusers``, such as aMUSEd's
(``amused``), whose networks read pixels in 0..1.

Where we deviate: group normalisation in the discriminator, no minibatch statistics and no gradient penalty in VIPER's
(which used StyleGAN's); discriminators join at the first step and TECO's train for 500,000, which the papers do not
say. TECO's table prints four channel multipliers and a 16 x 16 grid for 64 x 64 frames too: we halve twice there and
leave the last two levels at 16 x 16. Without LPIPS's weights random features stand in, and the logs call them so.

Measured here (``filmstrip claims vqgan_sharpness``, mazes at 32 x 32, 100 steps, mean of three seeds, stand-in
features): gradients 0.57 times the original's, against 0.53 with absolute error alone; Frechet distance 4.5 against
5.0 thousandths, in random features that none was trained with; PSNR 17.8 in both. A short training and small gaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.frame_autoencoder import Down, FrameAttention, FrameAutoencoder, ResidualBlock, Up
from filmstrip.objectives.adversarial import AdversarialConfig, AdversarialTokenizer
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.perceptual import load_perceptual
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant
from filmstrip.weights.diffusers import from_diffusers
from filmstrip.weights.flax import Tree, under
from filmstrip.weights.keymap import Weights


class VQGAN(AdversarialTokenizer):
    """The loss with a codebook between encoder and decoder."""

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Autoencoder and codes from the flat ``params`` and ``stats`` of TECO's, or in the layout of ``diffusers``.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        if _FLAX_CODES in theirs:
            return from_vqgan(theirs, self.autoencoder)
        return from_diffusers(theirs, self.state_dict().keys())


@dataclass(frozen=True, kw_only=True)
class VQGANConfig(AdversarialConfig):
    """The networks around a codebook."""

    codebook: Codebook = field(default_factory=lambda: Codebook(kind="learnt"))

    def of_hub(
        self, config: Mapping[str, Any], statistics: Mapping[str, Any] | None, source: str
    ) -> tuple[VQGANConfig, int]:
        """See :meth:`ObjectiveConfig.of_hub`: the networks of a ``VQModel`` of ``diffusers``.

        Its ``config.json`` does not say in which range pixels are. They are in -1..1 where the middle has attention,
        and in 0..1, as in the pipelines of aMUSEd, where it has none.

        Raises:
            UserError: it is another model, or has a part that these networks do not have.
        """
        if config.get("_class_name") != "VQModel":
            raise UserError(f"{source} is a {config.get('_class_name', 'model of unknown kind')}, and no VQModel")
        told = {
            "layers_per_block": 1,
            "latent_channels": 3,
            "num_vq_embeddings": 256,
            "norm_num_groups": 32,
            **config,
        }
        widths = tuple(told.get("block_out_channels", (64,)))
        down = told.get("down_block_types", ("DownEncoderBlock2D",))
        attends = tuple(i for i, name in enumerate(down) if name.startswith("Attn"))
        unknown = {
            "act_fn": told.get("act_fn", "silu") != "silu",
            "norm_type": told.get("norm_type", "group") != "group",
            "vq_embed_dim": told.get("vq_embed_dim") not in (None, told["latent_channels"]),
            "down_block_types": len(down) != len(widths),
        }
        if said := [name for name, is_unknown in unknown.items() if is_unknown]:
            shown = ", ".join(f"{name} {told[name]!r}" for name in said)
            raise UserError(f"{source} asks for {shown}, which these networks do not have")
        middle = bool(told.get("mid_block_add_attention", True))
        own = replace(
            self,
            widths=widths,
            depth=told["layers_per_block"],
            halvings=None,
            attention_levels=attends,
            middle_attention=middle,
            groups=told["norm_num_groups"],
            pixels="signed" if middle else "unit",
            codebook=Codebook(kind="learnt", size=told["num_vq_embeddings"], dim=told["latent_channels"]),
        )
        return own, told.get("sample_size", 256)

    def build(self) -> VQGAN:
        """Build the networks with fresh weights."""
        return VQGAN(self, self.codebook.build(), load_perceptual)


_FLAX_CODES = "quantize/embeddings"
_KINDS = {ResidualBlock: "ResnetBlock", FrameAttention: "AttnBlock", Down: "Downsample", Up: "Upsample"}


def from_vqgan(theirs: Mapping[str, Tensor], network: FrameAutoencoder) -> Weights:
    """Weights of a :class:`VQGAN` whose autoencoder this is, but for the loss's own, from a flat flax checkpoint.

    Its ``params`` and ``stats`` are in one mapping: the codebook lies in the latter.

    Raises:
        UserError: an array is missing or has no place here.
    """
    tree = Tree(theirs, "this state of a VQ-GAN")
    encoder = [("down", network.down), ("encoder_middle", network.encoder_middle)]
    decoder = [("decoder_middle", network.decoder_middle), ("up", network.up)]
    ours = {
        **under("conv_in", tree.conv("encoder/Conv_0")),
        **_blocks(tree, "encoder", encoder),
        **under("encoder_out.0", tree.norm("encoder/GroupNorm_0")),
        **under("encoder_out.2", tree.conv("encoder/Conv_1")),
        **under("to_latents", tree.conv("quant_conv")),
        **under("from_latents", tree.conv("post_quant_conv")),
        **under("decoder_in", tree.conv("decoder/Conv_0")),
        **_blocks(tree, "decoder", decoder),
        **under("decoder_out.0", tree.norm("decoder/GroupNorm_0")),
        **under("decoder_out.2", tree.conv("decoder/Conv_1")),
    }
    codes = tree[_FLAX_CODES][None]
    tree.check_all_read()
    return under("autoencoder", ours) | {"bottleneck.codes": codes}


def _blocks(tree: Tree, side: str, parts: Sequence[tuple[str, nn.Module]]) -> Weights:
    """All blocks of the encoder or the decoder, in the order of its parts: there each kind is numbered through."""
    ours, numbers = {}, {kind: count() for kind in _KINDS}
    for prefix, part in parts:
        for name, module in part.named_modules():
            kind = type(module)
            if kind in _KINDS:
                theirs = f"{side}/{_KINDS[kind]}_{next(numbers[kind])}"
                ours |= under(f"{prefix}.{name}", _block(tree, theirs, module))
    return ours


def _block(tree: Tree, name: str, module: nn.Module) -> Weights:
    if isinstance(module, FrameAttention):
        q, k, v, out = (tree.conv(f"{name}/Conv_{i}") for i in range(4))
        qkv = {kind: torch.cat([part[kind] for part in (q, k, v)]) for kind in ("weight", "bias")}
        return {
            **under("norm", tree.norm(f"{name}/GroupNorm_0")),
            **under("attention.qkv", {"weight": qkv["weight"].flatten(1), "bias": qkv["bias"]}),
            **under("attention.out", {"weight": out["weight"].flatten(1), "bias": out["bias"]}),
        }
    if isinstance(module, (Down, Up)):
        return tree.conv(f"{name}/Conv_0")
    ours = {
        **under("norm1", tree.norm(f"{name}/GroupNorm_0")),
        **under("conv1", tree.conv(f"{name}/Conv_0")),
        **under("norm2", tree.norm(f"{name}/GroupNorm_1")),
        **under("conv2", tree.conv(f"{name}/Conv_1")),
    }
    if not isinstance(module.shortcut, nn.Identity):
        ours |= under("shortcut", tree.conv(f"{name}/Conv_2"))
    return ours


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=2, stride=8, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VQGANConfig.small(codebook=Codebook(kind="learnt", size=64, dim=16)),
        optim=AdamW(lr=4e-3, weight_decay=0.0, betas=(0.5, 0.9)),
        train=Loop(length=Steps(100), clip_grad=None),
    )


def _frames(network: VQGANConfig, *, size: int, batch_size: int, lr: float, steps: int) -> Run:
    """Single frames, Adam with a constant rate."""
    return Run(
        data=Data(
            clip=Clip(num_frames=1, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
        ),
        objective=network,
        optim=AdamW(lr=lr, weight_decay=0.0, betas=(0.5, 0.9), schedule=Constant()),
        train=Loop(length=Steps(steps), clip_grad=None),
    )


def _teco(*, size: int, codes: int, **network: object) -> Run:
    """TECO: batches of 64, 3e-4, codes of 256 channels, 16 x 16 of them."""
    codebook = Codebook(kind="learnt", size=codes, dim=256)
    config = VQGANConfig(codebook=codebook, adversarial_weight=1.0, start=0, gan_loss="log", **network)
    return _frames(config, size=size, batch_size=64, lr=3e-4, steps=500_000)


def dmlab() -> Run:
    """TECO's for DMLab: 64 x 64 frames, 1024 codes."""
    return _teco(size=64, codes=1024, widths=(128, 256, 256, 256), halvings=2, attention_levels=(2, 3))


def minecraft() -> Run:
    """TECO's for Minecraft: 128 x 128 frames, 1024 codes."""
    return _teco(size=128, codes=1024, widths=(128, 256, 256, 256), attention_levels=(3,))


def habitat() -> Run:
    """TECO's for Habitat: 128 x 128 frames, 8192 codes."""
    return _teco(size=128, codes=8192, widths=(128, 256, 384, 512), attention_levels=(3,))


def kinetics600() -> Run:
    """TECO's for Kinetics-600: Habitat's network."""
    return _teco(size=128, codes=8192, widths=(128, 256, 384, 512), attention_levels=(3,))


def amused() -> Run:
    """aMUSEd's, which LWM codes frames with: 256 x 256 pixels become 16 x 16 of 8,192 codes, without any attention.

    Its authors' training is not published with it: weights come from there, the rest is as TECO's.
    """
    network = VQGANConfig(
        widths=(128, 256, 256, 512, 768),
        middle_attention=False,
        pixels="unit",
        codebook=Codebook(kind="learnt", size=8192, dim=64),
        adversarial_weight=1.0,
        start=0,
        gan_loss="log",
    )
    return _frames(network, size=256, batch_size=64, lr=3e-4, steps=500_000)


def _viper(*, widths: tuple[int, ...], depth: int) -> Run:
    """VIPER: 64 x 64 frames, batches of 128, 1e-4, 1024 codes of 64 channels, 200,000 steps."""
    network = VQGANConfig(
        widths=widths,
        depth=depth,
        codebook=Codebook(kind="learnt", size=1024, dim=64),
        perceptual_weight=0.1,
        adversarial_weight=0.1,
        start=0,
        gan_loss="log",
        discriminator_width=32,
    )
    return _frames(network, size=64, batch_size=128, lr=1e-4, steps=200_000)


def viper_dmc() -> Run:
    """VIPER's for the DeepMind Control Suite: 8 x 8 codes."""
    return _viper(widths=(128, 128, 256, 256), depth=1)


def viper_atari() -> Run:
    """VIPER's for Atari: 16 x 16 codes."""
    return _viper(widths=(128, 256, 256), depth=1)


def viper_rlbench() -> Run:
    """VIPER's for RLBench: 16 x 16 codes."""
    return _viper(widths=(128, 256, 256), depth=2)
