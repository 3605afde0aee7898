"""What PyTorchVideo's hub and the SlowFast code base call the parts of residual networks over video.

The hub's files (``blocks.1.res_blocks.0.branch2.conv_a.weight``) and the code base's
(``s2.pathway0_res0.branch2.a.weight``) both put the state under ``model_state``. Networks that detect actors have a
prefix in PyTorchVideo (``model.blocks``, ``detection_head.proj``), and none in the SlowFast code base. Their
convolutions within frames or over frames alone are three-dimensional, with sides of one; ours are two-dimensional:
the numbers are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from filmstrip.protocols import Layout, Rules

HUB, SLOWFAST, DETECTION = "PyTorchVideo", "SlowFast", "PyTorchVideo detection"
_AFTER = (r"head\..*", r"blocks\.\d+\.(?:proj|pool\.post_conv)\..*", r"detection_head\..*")
_DETECTION: Rules = ((r"^blocks\.\d+\.proj\.", "detection_head.proj."), (r"^blocks\.", "model.blocks."))


def layouts(
    hub: Rules,
    slowfast: Rules,
    *,
    convolved: str = "",
    check: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> tuple[Layout, ...]:
    """The layouts of the hub, of the code base and of the hub's detectors, by rules for the first two.

    ``convolved`` is a pattern of our names (without ``encoder.``) of linear maps that are convolutions there. A
    detector is a classifier's network with another head, so that either may begin with the other's.
    """

    def with_all_sides(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim == 4:  # a kernel in time is k x 1, one in space k x k
            return tensor[:, :, :, :, None] if tensor.shape[2] != tensor.shape[3] else tensor[:, :, None]
        if re.fullmatch(convolved, name.removeprefix("encoder.")):
            return tensor[:, :, None, None, None]
        return tensor

    named = ((HUB, hub), (SLOWFAST, slowfast), (DETECTION, (*hub, *_DETECTION)))
    return tuple(
        Layout(
            name=name,
            rules=((r"^encoder\.", ""), *rules),
            after=_AFTER,
            to_theirs=with_all_sides,
            check=check,
        )
        for name, rules in named
    )


def bottleneck_rules(layout: str, *, third: int = 6) -> Rules:
    """Rules of ``body`` and ``shortcut`` of a block: three normalised convolutions, the last part ``third``."""
    hub, rules = layout == HUB, []
    for letter, part in zip("abc", (0, 3, third)):
        conv, norm = (f"conv_{letter}", f"norm_{letter}") if hub else (letter, f"{letter}_bn")
        rules += [
            (rf"\.body\.{part}\.", f".branch2.{conv}."),
            (rf"\.body\.{part + 1}\.", f".branch2.{norm}."),
        ]
    conv, norm = ("branch1_conv", "branch1_norm") if hub else ("branch1", "branch1_bn")
    return (*rules, (r"\.shortcut\.0\.", f".{conv}."), (r"\.shortcut\.1\.", f".{norm}."))


def stem_rules(layout: str, ours: str, theirs: str) -> Rules:
    """Rules for the names of a convolution and its normalisation."""
    norm = "norm" if layout == HUB else "bn"
    return ((rf"^{ours}\.0\.", f"{theirs}.conv."), (rf"^{ours}\.1\.", f"{theirs}.{norm}."))
