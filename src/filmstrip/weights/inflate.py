"""Inflation: a 2D convolutional network's weights as the start of a 3D one (Carreira & Zisserman 2017, I3D).

A kernel is repeated along time and divided by its length there: of a video whose frames are all the same, the 3D
network then sees what the 2D one sees of the frame, but near the ends, where a convolution over time meets zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.weights.keymap import Weights, check_names

_NORMS = {nn.BatchNorm2d: nn.BatchNorm3d, nn.InstanceNorm2d: nn.InstanceNorm3d, nn.Dropout2d: nn.Dropout3d}


def inflate_weights(
    flat: Mapping[str, Tensor],
    like: Mapping[str, Tensor],
    *,
    spare: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> Weights:
    """Weights for ``like`` (a 3D network's state) from ``flat`` (a 2D one's, by the same names).

    Kernels ``O I H W`` become ``O I T H W``, or ``O I T 1`` where ours convolves over time alone. Names that match a
    pattern of ``spare`` are left out of ``flat`` (a head), those of ``optional`` may be ``like``'s alone (what there
    is only over time).

    Raises:
        UserError: other names are not in both, or a tensor has a shape that cannot be inflated to the one wanted.
    """
    check_names("the 2D network", flat, like, spare=spare, optional=optional)
    inflated = {}
    for name, wanted in like.items():
        if name not in flat:
            continue
        given = flat[name]
        if given.shape == wanted.shape:
            inflated[name] = given
        elif given.ndim == 4 and wanted.ndim == 5 and given.shape == (*wanted.shape[:2], *wanted.shape[3:]):
            inflated[name] = given[:, :, None].expand_as(wanted) / wanted.shape[2]
        elif given.ndim == wanted.ndim == 4 and given.shape == (*wanted.shape[:2], 1, 1) and wanted.shape[3] == 1:
            inflated[name] = given.expand_as(wanted) / wanted.shape[2]
        else:
            raise UserError(f"{name} of shape {tuple(given.shape)} cannot be inflated to {tuple(wanted.shape)}")
    return inflated


def inflate(network: nn.Module, frames: int | Callable[[str], int] = 3) -> nn.Module:
    """A 3D copy of a 2D convolutional network, ``B C H W -> B C T H W``, with its weights inflated.

    Each convolution spans ``frames`` frames, or as many as ``frames`` says of its name; poolings keep to single ones.
    The network's own code must not depend on how many dimensions an activation has.

    Raises:
        ValueError: a number of frames is even, or the network has a layer that has no 3D counterpart here.
    """
    inflated = copy.deepcopy(network)
    for name, module in list(inflated.named_modules()):
        length = frames if isinstance(frames, int) else frames(name)
        if (replacement := _inflated(module, length, name)) is None:
            continue
        replacement.train(module.training)
        if not name:
            return replacement
        inflated.set_submodule(name, replacement)
    return inflated


def _inflated(module: nn.Module, frames: int, name: str) -> nn.Module | None:
    """The 3D counterpart of one layer; none where it works on any number of dimensions."""
    if isinstance(module, nn.Conv2d):
        return _convolution(module, frames, name)
    if isinstance(module, nn.MaxPool2d):
        size = {key: _beside(getattr(module, key), one) for key, one in (("kernel_size", 1), ("stride", 1))}
        spread = {key: _beside(getattr(module, key), one) for key, one in (("padding", 0), ("dilation", 1))}
        return nn.MaxPool3d(**size, **spread, ceil_mode=module.ceil_mode)
    if isinstance(module, nn.AvgPool2d):
        size = {
            key: _beside(getattr(module, key), one)
            for key, one in (("kernel_size", 1), ("stride", 1), ("padding", 0))
        }
        return nn.AvgPool3d(**size, ceil_mode=module.ceil_mode, count_include_pad=module.count_include_pad)
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        kind = nn.AdaptiveAvgPool3d if isinstance(module, nn.AdaptiveAvgPool2d) else nn.AdaptiveMaxPool3d
        return kind(_beside(module.output_size, None))
    for flat, solid in _NORMS.items():
        if type(module) is flat:
            if flat is nn.Dropout2d:
                return solid(module.p)
            norm = solid(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
            norm.load_state_dict(module.state_dict())
            return norm
    if type(module).__module__.startswith("torch.nn.modules") and type(module).__name__.endswith("2d"):
        raise ValueError(f"{name} is a {type(module).__name__}, which is not inflated here")
    return None


def _convolution(conv: nn.Conv2d, frames: int, name: str) -> nn.Conv3d:
    if frames % 2 == 0:
        raise ValueError(f"{name} was to span {frames} frames: an odd number keeps a clip's length")
    solid = nn.Conv3d(
        conv.in_channels,
        conv.out_channels,
        (frames, *conv.kernel_size),
        stride=(1, *conv.stride),
        padding=conv.padding if isinstance(conv.padding, str) else (frames // 2, *conv.padding),
        dilation=(1, *conv.dilation),
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    solid.load_state_dict(inflate_weights(conv.state_dict(), solid.state_dict()))
    return solid


def _beside(value: int | tuple[int | None, ...] | None, time: int | None) -> tuple[int | None, ...]:
    """The value for height and width, with one for time before it."""
    return (time, *(value if isinstance(value, tuple) else (value, value)))
