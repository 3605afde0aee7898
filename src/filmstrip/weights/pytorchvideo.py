"""Released weights of SlowFast, X3D, I3D, Slow and nonlocal networks, and of C3D, in the layouts they come in.

PyTorchVideo's hub (``blocks.1.res_blocks.0.branch2.conv_a.weight``) and the SlowFast code base
(``s2.pathway0_res0.branch2.a.weight``; both put the state under ``model_state``), and Caffe's names for C3D
(``conv3a.weight``, ``fc6.weight``). Networks that detect actors have a prefix in PyTorchVideo (``model.blocks``,
``detection_head.proj``), and none in the SlowFast code base. Their convolutions within frames or over frames alone
are three-dimensional, with sides of one; ours are two-dimensional: the numbers are the same. Files of other networks
are passed on to :mod:`~filmstrip.weights.hierarchical`, :mod:`~filmstrip.weights.i3d` and
:mod:`~filmstrip.weights.videomae`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.i3d import I3D
from filmstrip.models.plain_cnn import PlainCNN
from filmstrip.models.resnet3d import ResNet3D
from filmstrip.models.slowfast import SlowFast
from filmstrip.models.vit import ViT
from filmstrip.models.x3d import X3D
from filmstrip.objectives.classification import Classification
from filmstrip.protocols import Detector
from filmstrip.weights import hierarchical, i3d, videomae
from filmstrip.weights.files import read_weights
from filmstrip.weights.keymap import COUNTERS, Weights, check_names, without

_HUB, _SLOWFAST, _CAFFE = "PyTorchVideo", "SlowFast", "C3D"
_HUB_DETECTION = "PyTorchVideo detection"
_C3D = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
_FORMER_NORM = re.compile(r"(_nonlocal\d+)\.bn\.")
"""What SlowFast's first versions called a nonlocal block's ``norm``."""
_HEADS = (r"head\..*", r"blocks\.\d+\.(?:proj|pool\.post_conv)\..*", r"detection_head\..*", r"fc[678]\..*")
"""What comes after the encoder, left out when only that is loaded."""
_LETTERS = {"0": "a", "1": "a", "3": "b", "4": "b", "6": "c", "7": "c", "8": "c"}


def load_published(path: Path, objective: Classification | Detector, *, head: bool = True) -> None:
    """Copy a file of released weights into ``objective``; without ``head`` into its encoder only.

    Raises:
        UserError: the file holds none of the layouts that are known of such a network, or does not fit it: weights
            are missing, have other shapes, or have no place in it. Nothing is loaded then.
    """
    theirs = read_weights(path)
    try:
        weights = from_published(theirs, objective, head=head)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    wanted = objective.state_dict()
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path} does not fit this network: {name} is {tuple(tensor.shape)} there and "
                f"{tuple(wanted[name].shape)} here"
            )
    objective.load_state_dict(weights, strict=False)


def from_published(
    theirs: Mapping[str, Tensor], objective: Classification | Detector, *, head: bool = True
) -> Weights:
    """Weights of ``objective`` from whichever layout its network is released in; without ``head``, of its encoder.

    Raises:
        UserError: no layout that is known has the names that this network needs, and no others.
    """
    if isinstance(objective.encoder, ViT):
        return videomae.from_published(theirs, objective, head=head)
    theirs = theirs.get("model_state", theirs)
    theirs = {_FORMER_NORM.sub(r"\1.norm.", name): tensor for name, tensor in theirs.items()}
    if isinstance(objective.encoder, I3D):
        weights = i3d.from_published(theirs, head=head)
        return {n if n.startswith("head.") else f"encoder.{n}": t for n, t in weights.items()}
    if isinstance(objective.encoder, hierarchical.NETWORKS):
        return hierarchical.from_published(theirs, objective, head=head)
    layouts = [published_names(objective, layout) for layout in layouts_of(objective)]
    if not head:
        layouts = [{n: key for n, key in names.items() if n.startswith("encoder.")} for names in layouts]
    names = min(layouts, key=lambda names: len(without(names.values(), theirs)))  # the layout that fits best
    _check_shortcuts(theirs, objective)
    spare = () if head else _HEADS
    what = f"a released {type(objective.encoder).__name__} of this size: the file"
    check_names(f"this is not {what}", theirs, names.values(), spare=spare, optional=(COUNTERS,))
    ours = objective.state_dict()
    return {name: _fitted(theirs[key], ours[name].ndim, name) for name, key in names.items() if key in theirs}


def _check_shortcuts(theirs: Mapping[str, Tensor], objective: Classification | Detector) -> None:
    """The two layouts of X3D are two networks: only the SlowFast code base's normalises every shortcut."""
    norm = "s2.pathway0_res0.branch1_bn.weight"
    if isinstance(objective.encoder, X3D) and norm in theirs and not objective.encoder.shortcut_norm:
        raise UserError(
            f"the file is an X3D of the SlowFast code base, which has a norm ({norm}) that this network has not: "
            "build it with shortcut_norm (--objective.shortcut-norm)"
        )


def to_published(objective: Classification | Detector, layout: str) -> Weights:
    """The inverse of :func:`from_published`, for one of :func:`layouts_of`; convolutions with all their sides."""
    ours = objective.state_dict()
    convolutions = {
        f"{name}.weight"
        for name, module in objective.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) or name.endswith((".weigh.0", ".weigh.2"))
    }
    weights = {}
    for name, key in published_names(objective, layout).items():
        tensor = ours[name]
        if name in convolutions or (name == "hidden.0.weight" and isinstance(objective.encoder, X3D)):
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None, None]
            elif tensor.ndim == 4:  # a kernel in time is k x 1, one in space k x k
                tensor = tensor[:, :, :, :, None] if tensor.shape[2] != tensor.shape[3] else tensor[:, :, None]
        weights[key] = tensor
    return weights


def layouts_of(objective: Classification | Detector) -> tuple[str, ...]:
    """The layouts that a network is released in.

    Raises:
        UserError: it is of another kind.
    """
    if isinstance(objective.encoder, (ResNet3D, SlowFast, X3D)):
        # A detector may also begin with a classifier's network.
        return (_HUB, _SLOWFAST, _HUB_DETECTION) if isinstance(objective, Detector) else (_HUB, _SLOWFAST)
    if isinstance(objective.encoder, PlainCNN):
        return (_CAFFE,)
    raise UserError(f"{type(objective.encoder).__name__} has no released layout that is known here")


def published_names(objective: Classification | Detector, layout: str) -> dict[str, str]:
    """Ours to theirs, for all that is saved but the normalisation of pixels."""
    called = _names_in(objective, layout)
    names = [name for name in objective.state_dict() if not name.startswith("encoder.normalise.")]
    return {name: called(name.removeprefix("encoder.")) for name in names}


def _names_in(objective: Classification | Detector, layout: str) -> Callable[[str], str]:
    """What a layout calls a parameter."""
    if layout == _CAFFE:
        return _caffe
    if layout == _HUB_DETECTION:
        within = _names_in(objective, _HUB)
        return lambda name: name.replace("head", "detection_head.proj") if "head" in name else f"model.{within(name)}"
    hub = layout == _HUB
    encoder = objective.encoder
    if isinstance(encoder, X3D):
        rules = _x3d_rules(hub)
    elif isinstance(encoder, SlowFast):
        rules = _slowfast_rules(hub)
    else:
        rules = _resnet_rules(hub, pooled=isinstance(encoder.pool, nn.MaxPool3d))
    rules = list(rules)

    def called(name: str) -> str:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, name):
                return replacement(match)
        raise UserError(f"{layout}'s layout has no name for {name}")

    return called


Rules = Iterator[tuple[str, Callable[[re.Match[str]], str]]]


def _resnet_rules(hub: bool, pooled: bool) -> Rules:
    """Stages are blocks 1 to 4, or 1 and 3 to 5 where a pooling is counted as a block."""

    def block(stage: str) -> str:
        number = int(stage) + 1 + (pooled and stage != "0")
        return f"blocks.{number}.res_blocks." if hub else f"s{int(stage) + 2}.pathway0_res"

    yield from _stem_rules("stem", "blocks.0" if hub else "s1.pathway0_stem", hub)
    yield (
        r"stages\.(\d+)\.(\d+)\.1\.(query|key|value|out|norm)\.(\w+)",
        lambda m: f"s{int(m[1]) + 2}.pathway0_nonlocal{m[2]}.{_NONLOCAL[m[3]]}.{m[4]}",
    )
    yield (
        r"stages\.(\d+)\.(\d+)\.(?:0\.)?((?:body|shortcut)\..*)",
        lambda m: f"{block(m[1])}{m[2]}.{_part(m[3], hub)}",
    )
    head = f"blocks.{6 if pooled else 5}.proj" if hub else "head.projection"
    yield r"head\.(\w+)", lambda m: f"{head}.{m[1]}"


_NONLOCAL = {"query": "conv_theta", "key": "conv_phi", "value": "conv_g", "out": "conv_out", "norm": "norm"}


def _slowfast_rules(hub: bool) -> Rules:
    for pathway, ours in enumerate(("slow", "fast")):
        stem = f"blocks.0.multipathway_blocks.{pathway}" if hub else f"s1.pathway{pathway}_stem"
        yield from _stem_rules(f"{ours}_stem", stem, hub)

        def stage(m: re.Match[str], pathway: int = pathway) -> str:
            number = int(m[1])
            if hub:
                return f"blocks.{number + 1}.multipathway_blocks.{pathway}.res_blocks.{m[2]}.{_part(m[3], hub)}"
            return f"s{number + 2}.pathway{pathway}_res{m[2]}.{_part(m[3], hub)}"

        yield rf"{ours}_stages\.(\d+)\.(\d+)\.(.*)", stage
    conv, norm = ("conv_fast_to_slow", "norm") if hub else ("conv_f2s", "bn")

    def fusion(m: re.Match[str]) -> str:
        where = f"blocks.{m[1]}.multipathway_fusion" if hub else f"s{int(m[1]) + 1}_fuse"
        return f"{where}.{conv if m[2] == '0' else norm}.{m[3]}"

    yield r"fusions\.(\d+)\.([01])\.(\w+)", fusion
    yield r"head\.(\w+)", lambda m: f"{'blocks.6.proj' if hub else 'head.projection'}.{m[1]}"


def _x3d_rules(hub: bool) -> Rules:
    """PyTorchVideo's ``conv_t`` is the stem's convolution in space, its ``conv_xy`` the one in time."""
    space, time, norm = ("conv.conv_t", "conv.conv_xy", "norm") if hub else ("conv_xy", "conv", "bn")
    stem = "blocks.0" if hub else "s1.pathway0_stem"
    yield r"stem\.([012])\.(\w+)", lambda m: f"{stem}.{(space, time, norm)[int(m[1])]}.{m[2]}"

    def stage(m: re.Match[str]) -> str:
        where = f"blocks.{int(m[1]) + 1}.res_blocks.{m[2]}" if hub else f"s{int(m[1]) + 2}.pathway0_res{m[2]}"
        index, rest = re.fullmatch(r"(?:body|shortcut)\.(\d)\.(.*)", m[3]).groups()
        if m[3].startswith("shortcut") or index != "5":
            # A place more than in a bottleneck, for the weights of channels between its second and third parts
            return f"{where}.{_part(m[3], hub, x3d=True)}"
        number, kind = re.fullmatch(r"weigh\.([02])\.(\w+)", rest).groups()
        inner = f"norm_b.1.block.{number}" if hub else f"se.fc{1 if number == '0' else 2}"
        return f"{where}.branch2.{inner}.{kind}"

    yield r"stages\.(\d+)\.(\d+)\.(.*)", stage
    last = ("blocks.5.pool.pre_conv", "blocks.5.pool.pre_norm") if hub else ("head.conv_5", "head.conv_5_bn")
    yield r"last\.([01])\.(\w+)", lambda m: f"{last[int(m[1])]}.{m[2]}"
    yield r"hidden\.0\.weight", lambda m: "blocks.5.pool.post_conv.weight" if hub else "head.lin_5.weight"
    yield r"head\.(\w+)", lambda m: f"{'blocks.5.proj' if hub else 'head.projection'}.{m[1]}"


def _stem_rules(ours: str, theirs: str, hub: bool) -> Rules:
    parts = ("conv", "norm" if hub else "bn")
    yield rf"{ours}\.([01])\.(\w+)", lambda m: f"{theirs}.{parts[int(m[1])]}.{m[2]}"


def _part(name: str, hub: bool, x3d: bool = False) -> str:
    """``body.0.weight`` or ``shortcut.1.bias`` of a block."""
    where, index, rest = name.split(".", 2)
    if where == "shortcut":
        return f"branch1{('_conv', '_norm')[int(index)] if hub else ('', '_bn')[int(index)]}.{rest}"
    letter = _LETTERS[index]
    norm = index in (("1", "4", "8") if x3d else ("1", "4", "7"))
    if hub:
        inside = ".0" if x3d and norm and letter == "b" else ""
        return f"branch2.{'norm' if norm else 'conv'}_{letter}{inside}.{rest}"
    return f"branch2.{letter}{'_bn' if norm else ''}.{rest}"


def _caffe(name: str) -> str:
    if match := re.fullmatch(r"layers\.(\d)\.0\.(\w+)", name):
        return f"{_C3D[int(match[1])]}.{match[2]}"
    if match := re.fullmatch(r"hidden\.(\d)\.(\w+)", name):
        return f"fc{6 if match[1] == '0' else 7}.{match[2]}"
    return name.replace("head", "fc8")


def _fitted(theirs: Tensor, ndim: int, name: str) -> Tensor:
    """A convolution with the sides of one left out that ours does not have."""
    for axis in (2, -1):
        if theirs.ndim == 5 and ndim == 4 and theirs.shape[axis] == 1:
            theirs = theirs.squeeze(axis)
    return theirs.flatten(1) if ndim == 2 and theirs.ndim > 2 else theirs
