"""Where a trained classifier looks in a clip: attention rollout of transformers, Grad-CAM of other networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from filmstrip.data.reading.views import read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, encoder_of, modes_kept
from filmstrip.nn.attention import Attention
from filmstrip.nn.mlp import MLP, GatedMLP
from filmstrip.nn.patches import PatchEmbed
from filmstrip.progress import counted
from filmstrip.protocols import Classifier, Features, Objective, as_float
from filmstrip.report.clips import side_by_side
from filmstrip.runs.conditions import class_of
from filmstrip.runs.loading import load_classes, load_objective
from filmstrip.video.write import write_video

_NORMS = (nn.LayerNorm, nn.RMSNorm)


class Explanation(NamedTuple):
    """What a classifier made of one clip, and where it looked."""

    label: str
    probability: float
    method: str
    """``attention rollout`` or ``Grad-CAM``."""
    heat: Tensor
    """``t h w`` in 0..1, on the network's own grid."""


def explain_file(folder: Path, file: Path, out: Path, *, class_name: str | None = None) -> Explanation:
    """Write a clip of a file beside itself with the heat of where the classifier in ``folder`` looked.

    Raises:
        UserError: the run is no classifier, has no such class, sees no places, or the file cannot be read.
    """
    objective, run = load_objective(folder)
    if not isinstance(objective, Classifier):
        raise UserError(f"{folder} holds a {type(objective).__name__}, which names no classes: give a classifier")
    classes = load_classes(folder)
    wanted = None if class_name is None else class_of(class_name, classes)
    views = read_views(file, run.data.clip, backend=run.data.backend)
    video = views.video[:1].to(device_of(objective))
    with counted("looking"), modes_kept(objective):
        objective.eval()
        with torch.no_grad():
            probabilities = objective.classify(video).float().softmax(dim=-1)[0]
        best = int(probabilities.argmax()) if wanted is None else wanted
        if attends(objective):
            method, heat = "attention rollout", attention_rollout(encoder_of(objective), video)[0]
        else:
            method, heat = "Grad-CAM", grad_cam(objective, video, best)
    start, end = views.spans[0]
    fps = (video.shape[1] - 1) / (end - start) if end > start else 8.0
    pixels = as_float(video[0]).cpu()
    write_video(out, side_by_side([pixels, overlay(pixels, heat.cpu())]), fps)
    return Explanation(classes[best], float(probabilities[best]), method, heat.cpu())


def attends(objective: Objective) -> bool:
    """Whether the objective's encoder is a transformer over patches of the video."""
    parts = list(encoder_of(objective).modules())
    return any(isinstance(m, PatchEmbed) for m in parts) and any(isinstance(m, Attention) for m in parts)


def attention_rollout(encoder: nn.Module, video: Tensor) -> Tensor:
    """How much of each token reaches an encoder's pooled output through its attention: ``B t h w``, largest 1.

    Abnar & Zuidema 2020: each layer mixes tokens by the mean of its heads' weights, and keeps them by its residual
    connection. The network runs twice: as it is, where queries and keys are noted; then with these weights alone, all
    else being linear (norms and projections the identity, feed-forward networks nothing), so that the gradient of the
    result with respect to the tokens is the rollout. Layouts are the network's own: it may attend over space and time
    apart, within windows, or in two stages.

    Raises:
        UserError: the encoder does not begin with patches, or is no transformer.
    """
    embed = next((m for m in encoder.modules() if isinstance(m, PatchEmbed)), None)
    attentions = [m for m in encoder.modules() if isinstance(m, Attention)]
    if embed is None or not attentions:
        raise UserError(f"{type(encoder).__name__} is no transformer over patches: it has no attention to roll out")
    noted: dict[nn.Module, list[tuple[Any, ...]]] = {m: [] for m in attentions}
    with _noting(noted), torch.no_grad():
        encoder(video)
    leaf: list[Tensor] = []

    def begin(module: nn.Module, given: tuple[Any, ...], tokens: Tensor) -> Tensor:
        leaf.append(torch.zeros_like(tokens, requires_grad=True))
        return leaf[0]

    hook = embed.register_forward_hook(begin)
    try:
        with torch.enable_grad(), _linear(encoder, noted):
            features = encoder(video)
            features.pooled()[:, 0].sum().backward(inputs=leaf)
    finally:
        hook.remove()
    reached = leaf[0].grad[:, :, 0]
    t = video.shape[1] // embed.patch_size[0]
    h = video.shape[3] // embed.patch_size[1]
    heat = rearrange(reached, "b (t h w) -> b t h w", t=t, h=h)
    return heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


def grad_cam(objective: Objective, video: Tensor, label: int) -> Tensor:
    """Where the last map of a convolutional network speaks for a class: ``t h w`` in 0..1, of one clip ``1 T C H W``.

    Selvaraju et al. 2017: each channel of the map counts by the mean gradient of the class's logit; what speaks
    against the class is cut off.

    Raises:
        UserError: the network has no places in space, or no gradient reaches them.
    """
    seen: list[Features] = []

    def note(module: nn.Module, given: tuple[Any, ...], features: Features) -> None:
        seen.append(features)

    hook = encoder_of(objective).register_forward_hook(note)
    try:
        with torch.enable_grad():
            logit = objective.classify(video)[0, label]
    finally:
        hook.remove()
    tokens, grid = seen[-1].tokens, seen[-1].grid
    if grid.h * grid.w == 1:
        raise UserError(f"{type(objective).__name__} keeps no places in space: there is nothing to overlay")
    if not tokens.requires_grad:
        raise UserError(f"no gradient reaches the frozen network of this {type(objective).__name__}")
    (gradient,) = torch.autograd.grad(logit, tokens)
    heat = (reduce(gradient, "s n d -> d", "mean") * tokens.detach()).sum(dim=-1).clamp(min=0)
    heat = rearrange(heat, "s (t h w) -> (s t) h w", t=grid.t, h=grid.h)
    return heat / heat.amax().clamp(min=1e-12)


def overlay(video: Tensor, heat: Tensor, strength: float = 0.6) -> Tensor:
    """``T C H W`` video in 0..1 with heat (``t h w`` in 0..1) laid over it in colours, by its strength."""
    import matplotlib

    size = (video.shape[0], *video.shape[2:])
    smooth = F.interpolate(heat[None, None].float(), size=size, mode="trilinear", align_corners=False)[0, 0]
    colours = torch.from_numpy(matplotlib.colormaps["turbo"](smooth.numpy())[..., :3]).to(video.dtype)
    share = strength * smooth[:, None].to(video.dtype)
    return video * (1 - share) + rearrange(colours, "t h w c -> t c h w") * share


@contextmanager
def _noting(noted: dict[nn.Module, list[tuple[Any, ...]]]) -> Iterator[None]:
    """Meanwhile every attention notes the queries, keys and masks of each of its calls."""

    def noter(module: Attention, calls: list[tuple[Any, ...]]):
        attend = module.attend

        def note(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
            calls.append((q, k, *rest))
            return attend(q, k, v, *rest)

        return note

    for module, calls in noted.items():
        module.attend = noter(module, calls)
    try:
        yield
    finally:
        for module in noted:
            del module.attend


@contextmanager
def _linear(encoder: nn.Module, noted: dict[nn.Module, list[tuple[Any, ...]]]) -> Iterator[None]:
    """Meanwhile attention mixes whole tokens by the noted weights, and the rest of each layer is left out."""
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
    """In place of an attention's output projection: the mean over heads of whole tokens."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """``B N (H D) -> B N D``."""
        return reduce(x, "b n (h d) -> b n d", "mean", h=self.num_heads)


def _replaying(module: Attention, calls: list[tuple[Any, ...]]) -> torch.utils.hooks.RemovableHandle:
    """Make an attention answer its calls by the noted weights in turn; for values, the tokens that it is given."""
    attend, turn, values = module.attend, iter(calls), []

    def begin(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        context = named.get("context")
        values[:] = [given[0] if context is None else context]

    def replay(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        q, k, *rest = next(turn)
        tokens = values[0][:, None].expand(-1, module.num_heads, -1, -1)
        return attend(q, k, tokens, *rest)

    module.attend = replay
    module.out = _MeanOfHeads(module.num_heads)
    return module.register_forward_pre_hook(begin, with_kwargs=True)
