"""Heat maps of a trained classifier: attention rollout of transformers, Grad-CAM of other networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.data.labels import scores_of
from filmstrip.data.reading.views import read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, encoder_of, modes_kept
from filmstrip.nn.attention import Attention
from filmstrip.nn.attentive_pooling import AttentivePooling
from filmstrip.nn.mlp import MLP, GatedMLP
from filmstrip.nn.patches import PatchEmbed
from filmstrip.progress import counted
from filmstrip.protocols import Classifier, Features, Objective, as_float
from filmstrip.report.clips import side_by_side
from filmstrip.runs.classifiers import load_classifier
from filmstrip.runs.conditions import class_of
from filmstrip.video.write import write_video

MIN_SIDE = 448
"""Minimum height and width of each of the two pictures, pixels."""
_NORMS = (nn.LayerNorm, nn.RMSNorm)
Calls = dict[Attention, list[tuple[Any, ...]]]
"""Queries, keys and masks of every call of each attention module, in order."""


class Explanation(NamedTuple):
    """The classification of one clip, with its heat map."""

    label: str
    probability: float
    method: str
    """``attention rollout`` or ``Grad-CAM``."""
    heat: Tensor
    """Heat map ``t h w`` in 0..1, on the network's own grid."""


def explain_file(folder: str | Path, file: Path, out: Path, *, class_name: str | None = None) -> Explanation:
    """Write a clip of a file beside the same clip with the heat map of the classifier in ``folder`` over it.

    Raises:
        UserError: the run is not a classifier, does not have the class or has no spatial features, or the file cannot
            be read.
    """
    classifier = load_classifier(folder)
    objective, classes = classifier.objective, classifier.classes
    assert isinstance(objective, Classifier), "checked where it was loaded"
    if objective.labels == "number":
        raise UserError(f"{folder} predicts numbers, and what speaks for a class is explained: give a classifier")
    requested = None if class_name is None else class_of(class_name, classes)
    views = read_views(file, classifier.clip, backend=classifier.backend)
    video = views.video[:1].to(device_of(objective))
    with counted("explaining"), modes_kept(objective):
        objective.eval()
        with torch.no_grad():
            probabilities = scores_of(objective.classify(video).float(), objective.labels)[0]
        best = int(probabilities.argmax()) if requested is None else requested
        if attends(encoder_of(objective)):
            pooling = next((m for m in objective.modules() if isinstance(m, AttentivePooling)), None)
            method, heat = "attention rollout", attention_rollout(encoder_of(objective), video, pooling)[0]
        else:
            method, heat = "Grad-CAM", grad_cam(objective, video, best)
    start, end = views.spans[0]
    fps = (video.shape[1] - 1) / (end - start) if end > start else 8.0
    factor = -(-MIN_SIDE // classifier.clip.size)
    shown = read_views(file, _enlarged(classifier.clip, factor), backend=classifier.backend)
    pixels = as_float(shown.video[0])
    write_video(out, side_by_side([pixels, overlay(pixels, heat.cpu())]), fps)
    return Explanation(classes[best], float(probabilities[best]), method, heat.cpu())


def _enlarged(clip: Clip, factor: int) -> Clip:
    """The same frames and the same cut with more pixels, of which a person sees more than a network needs."""
    short_side = None if clip.eval_short_side is None else factor * clip.eval_short_side
    return replace(clip, size=factor * clip.size, eval_short_side=short_side)


def attends(encoder: nn.Module) -> bool:
    """Whether an encoder is a transformer over patches of the video."""
    parts = list(encoder.modules())
    return any(isinstance(m, PatchEmbed) for m in parts) and any(isinstance(m, Attention) for m in parts)


def attention_rollout(encoder: nn.Module, video: Tensor, pooling: AttentivePooling | None = None) -> Tensor:
    """Share of each token in an encoder's pooled output through attention: ``B t h w``, scaled to a maximum of 1.

    That output is pooled by the encoder itself, or by the attention of ``pooling``, which is then a part of it.

    Abnar & Zuidema 2020: each layer mixes tokens by the mean of its heads' weights, plus the residual connection. The
    network runs twice: unchanged, recording queries and keys; then linearised, with only these attention weights
    (norms and projections are the identity, feed-forward networks zero), so that the gradient of the output with
    respect to the tokens is the rollout. This works for any layout of attention: divided space and time, windows, or
    two stages.

    Raises:
        UserError: the encoder does not begin with a patch embedding, or is not a transformer.
    """
    embed = next((m for m in encoder.modules() if isinstance(m, PatchEmbed)), None)
    parts = nn.ModuleList([encoder] if pooling is None else [encoder, pooling])
    attentions = [m for m in parts.modules() if isinstance(m, Attention)]
    if embed is None or not attends(encoder):
        raise UserError(
            f"{type(encoder).__name__} is not a transformer over patches: attention rollout is not defined for it"
        )
    noted: Calls = {m: [] for m in attentions}

    def pooled() -> Tensor:
        features = encoder(video)
        return features.pooled() if pooling is None else pooling.pool(features.tokens)

    with _noting(noted), torch.no_grad():
        pooled()
    leaf: list[Tensor] = []

    def begin(module: nn.Module, given: tuple[Any, ...], tokens: Tensor) -> Tensor:
        leaf.append(torch.zeros_like(tokens, requires_grad=True))
        return leaf[0]

    hook = embed.register_forward_hook(begin)
    try:
        with torch.enable_grad(), _linear(parts, noted):
            pooled()[:, 0].sum().backward(inputs=leaf)
    finally:
        hook.remove()
    gradient = leaf[0].grad
    assert gradient is not None, "backward was given this tensor"
    reached = gradient[:, :, 0]
    t = video.shape[1] // embed.patch_size[0]
    h = video.shape[3] // embed.patch_size[1]
    heat = rearrange(reached, "b (t h w) -> b t h w", t=t, h=h)
    return heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


def grad_cam(objective: Objective, video: Tensor, label: int) -> Tensor:
    """Grad-CAM of a class on a network's last feature map: ``t h w`` in 0..1, of one clip ``1 T C H W``.

    Selvaraju et al. 2017: each channel of the map is weighted by the mean gradient of the class's logit; negative
    values are set to zero.

    Raises:
        UserError: the network has no spatial features, or no gradient reaches them.
    """
    assert isinstance(objective, Classifier), "explain_file refuses other objectives"
    outputs: list[Features] = []

    def note(module: nn.Module, given: tuple[Any, ...], features: Features) -> None:
        outputs.append(features)

    hook = encoder_of(objective).register_forward_hook(note)
    try:
        with torch.enable_grad():
            logit = objective.classify(video)[0, label]
    finally:
        hook.remove()
    tokens, grid = outputs[-1].tokens, outputs[-1].grid
    if grid.h * grid.w == 1:
        raise UserError(f"{type(objective).__name__} has no spatial features: there is no heat map to show")
    if not tokens.requires_grad:
        raise UserError(f"no gradient reaches the frozen network of this {type(objective).__name__}")
    (gradient,) = torch.autograd.grad(logit, tokens)
    heat = (reduce(gradient, "s n d -> d", "mean") * tokens.detach()).sum(dim=-1).clamp(min=0)
    heat = rearrange(heat, "s (t h w) -> (s t) h w", t=grid.t, h=grid.h)
    return heat / heat.amax().clamp(min=1e-12)


def overlay(video: Tensor, heat: Tensor, strength: float = 0.6) -> Tensor:
    """``T C H W`` video in 0..1 with a colour-mapped heat map (``t h w`` in 0..1) blended in, up to ``strength``."""
    import matplotlib

    size = (video.shape[0], *video.shape[2:])
    smooth = F.interpolate(heat[None, None].float(), size=size, mode="trilinear", align_corners=False)[0, 0]
    colours = torch.from_numpy(matplotlib.colormaps["turbo"](smooth.numpy())[..., :3]).to(video.dtype)
    share = strength * smooth[:, None].to(video.dtype)
    return video * (1 - share) + rearrange(colours, "t h w c -> t c h w") * share


def _replace_attend(module: Attention, attend: Callable[..., Tensor]) -> None:
    """Replace one module's method, until the attribute is deleted."""
    vars(module)["attend"] = attend


@contextmanager
def _noting(noted: Calls) -> Iterator[None]:
    """Inside, every attention module records the queries, keys and masks of its calls."""

    def noter(module: Attention, calls: list[tuple[Any, ...]]) -> Callable[..., Tensor]:
        attend = module.attend

        def note(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
            calls.append((q, k, *rest))
            return attend(q, k, v, *rest)

        return note

    for module, calls in noted.items():
        _replace_attend(module, noter(module, calls))
    try:
        yield
    finally:
        for module in noted:
            del module.attend


@contextmanager
def _linear(encoder: nn.Module, noted: Calls) -> Iterator[None]:
    """Inside, attention mixes whole tokens by the recorded weights, and the rest of each layer is omitted."""
    hooks, outs = [], {module: module.out for module in noted}
    inside = {part for module in noted for part in module.modules()}
    for part in encoder.modules():
        if isinstance(part, _NORMS) and part not in inside:
            hooks.append(part.register_forward_hook(lambda module, given, out: given[0]))
        elif isinstance(part, (MLP, GatedMLP)):
            inside.update(part.modules())
            hooks.append(part.register_forward_hook(lambda module, given, out: torch.zeros_like(out)))
        elif isinstance(part, nn.Linear) and part not in inside and part.in_features == part.out_features:
            hooks.append(part.register_forward_hook(lambda module, given, out: given[0]))
    for module, calls in noted.items():
        hooks.append(_replaying(module, calls))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, out in outs.items():
            del module.attend
            module.out = out


class _MeanOfHeads(nn.Module):
    """Replacement of an attention's output projection: the mean of whole tokens over heads."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """``B N (H D) -> B N D``."""
        return reduce(x, "b n (h d) -> b n d", "mean", h=self.num_heads)


def _replaying(module: Attention, calls: list[tuple[Any, ...]]) -> torch.utils.hooks.RemovableHandle:
    """Make an attention module replay its recorded weights call by call, with its input tokens as values."""
    attend, turn = module.attend, iter(calls)
    values: list[Tensor] = []

    def begin(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        context = named.get("context")
        values[:] = [given[0] if context is None else context]

    def replay(*given: Any) -> Tensor:
        q, k, *rest = next(turn)
        tokens = values[0][:, None].expand(-1, module.num_heads, -1, -1)
        return attend(q, k, tokens, *rest)

    _replace_attend(module, replay)
    module.register_module("out", _MeanOfHeads(module.num_heads))
    return module.register_forward_pre_hook(begin, with_kwargs=True)
