"""Weights of TECO's published code: the flat ``params`` of its flax checkpoint (:mod:`filmstrip.weights.flax`)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from filmstrip.systems.generation.teco.frames import ScaledResidual
from filmstrip.weights.flax import Tree, under
from filmstrip.weights.keymap import Weights
from filmstrip.weights.positions import side_by_side


def from_teco(theirs: Mapping[str, Tensor], objective: nn.Module) -> Weights:
    """Weights of a :class:`~filmstrip.systems.generation.teco.TECO`, without its tokenizer, which theirs has not
    either.

    Of a model without actions their embedding of action 0, which every frame has there, joins what it is added to.

    Raises:
        UserError: an array is missing or has no place here.
    """
    tree = Tree(theirs, "this state of TECO")
    last = tree.dense("encoder/layers_1")
    ours = {
        "before_first": tree["sos_post"].movedim(-1, 0).contiguous(),
        "quantiser.codes": tree["codebook/codebook"][None],
        **under("encoder.0", tree.conv("encoder/layers_0/Conv_0")),
        **_residuals(tree, "encoder/layers_0", "encoder", objective.encoder),
        **under(f"encoder.{len(objective.encoder) - 1}", last | {"weight": last["weight"][:, :, None, None]}),
        **under("to_code", tree.dense("codebook/Dense_0")),
        **under("from_code", tree.dense("codebook/Dense_1")),
        **_history(tree, objective),
        **_prior(tree, len(objective.prior.blocks)),
        **under("decoder.body.0", tree.conv("decoder/Conv_0")),
        **_residuals(tree, "decoder", "decoder.body", objective.decoder.body),
        **under("decoder.norm", tree.norm("decoder/LayerNorm_0")),
        **under("decoder.out", tree.dense("decoder/Dense_0")),
    }
    tree.check_all_read()
    return ours


def _residuals(tree: Tree, theirs: str, ours: str, layers: nn.Sequential) -> Weights:
    """All residual blocks of an encoder or a decoder, which are numbered without the layers between them there."""
    weights = {}
    places = [i for i, layer in enumerate(layers) if isinstance(layer, ScaledResidual)]
    for k, place in enumerate(places):
        name, prefix = f"{theirs}/ResNetBlock_{k}", f"{ours}.{place}"
        second = tree.conv(f"{name}/Conv_1") | {"bias": tree[f"{name}/AddBias_0/bias"]}
        weights |= under(f"{prefix}.norm1", tree.norm(f"{name}/GroupNorm_0"))
        weights |= under(f"{prefix}.conv1", tree.conv(f"{name}/Conv_0"))
        weights |= under(f"{prefix}.norm2", tree.norm(f"{name}/GroupNorm_1")) | under(f"{prefix}.conv2", second)
        if not isinstance(layers[place].shortcut, nn.Identity):
            weights |= under(f"{prefix}.shortcut", tree.conv(f"{name}/skip"))
    return weights


def _block(tree: Tree, name: str) -> Weights:
    """One layer of a transformer."""
    attention = tree.attention(f"{name}/MultiHeadAttention_0")
    attention["out.bias"] = tree[f"{name}/MultiHeadAttention_0/out_bias/bias"]
    second = tree.dense(f"{name}/MlpBlock_0/wo") | {"bias": tree[f"{name}/MlpBlock_0/wo_bias/bias"]}
    return {
        **under("norm1", tree.norm(f"{name}/LayerNorm_0")),
        **under("attention", attention),
        **under("norm2", tree.norm(f"{name}/LayerNorm_1")),
        **under("mlp.fc1", tree.dense(f"{name}/MlpBlock_0/wi")),
        **under("mlp.fc2", second),
    }


def _history(tree: Tree, objective: nn.Module) -> Weights:
    """The temporal transformer, and the actions that it is told."""
    start, down = tree["sos"].flatten(0, 1), tree.conv("z_proj")["weight"]
    project, actions = tree.dense("z_tfm/Dense_0"), tree["action_embeds/embedding"]
    ours = {}
    if objective.conditions.known.has_action:
        ours |= {"conditions.action.weight": actions[:-1], "conditions.no_action": actions[-1]}
    else:
        channels = len(actions[0])
        constant = down[:, -channels:].sum(dim=(2, 3)) @ actions[0]
        down, start = down[:, :-channels], start - constant
        project["bias"] = project["bias"] + project["weight"] @ constant
    ours |= {"history.start": start} | under("history.down", {"weight": down}) | under("history.project", project)
    for i in range(len(objective.history.blocks)):
        ours |= under(f"history.blocks.{i}", _block(tree, f"z_tfm/TransformerLayer_{i}"))
    ours |= under("history.head.0", tree.dense("z_tfm/Dense_1"))
    ours |= under("history.head.2", tree.norm("z_tfm/LayerNorm_0"))
    return ours | under("history.up", tree.transposed_conv("z_unproj"))


def _prior(tree: Tree, depth: int) -> Weights:
    """The masked transformer."""
    ours = {"prior.embed.weight": tree["z_git/token_embed"], "prior.bias": tree["z_git/mlm/AddBias_0/bias"]}
    axes = [tree[f"z_git/net/BroadcastPositionBiases_0/d_{axis}"] for axis in (0, 1)]
    ours |= {f"prior.positions.{i}": table for i, table in enumerate(side_by_side(axes))}
    ours |= under("prior.project", tree.dense("z_git/net/Dense_0"))
    for i in range(depth):
        ours |= under(f"prior.blocks.{i}.inner", _block(tree, f"z_git/net/TransformerLayer_{i}"))
    ours |= under("prior.head.0", tree.dense("z_git/net/Dense_1"))
    ours |= under("prior.head.2", tree.norm("z_git/net/LayerNorm_0"))
    ours |= under("prior.head.3", tree.dense("z_git/mlm/Dense_0"))
    return ours | under("prior.head.5", tree.norm("z_git/mlm/LayerNorm_0"))
