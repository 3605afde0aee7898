"""The feature networks behind FVD and the inception score, and what they are shown.

Before any network, the same is done to real and to made video, and the names of metrics say it:

1. pixels are rounded to 8 bits, as a file would hold them;
2. whole clips, or windows of ``num_frames`` side by side (each counts as one sample; frames left over are dropped);
3. frames are stretched to ``size x size``, bilinearly, without smoothing (half-pixel centres);
4. pixels are scaled as the network was trained: to -1..1 for I3D.

FVD as published (Unterthiner et al. 2019) is I3D's logits on Kinetics-400, averaged over time, at 224 pixels.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, Weight
from filmstrip.data.augment.levels import to_levels
from filmstrip.errors import UserError
from filmstrip.evals.frechet import FrechetPair
from filmstrip.inference import inference
from filmstrip.models.i3d import I3D
from filmstrip.protocols import Classifier, as_float
from filmstrip.weights.files import read_weights
from filmstrip.weights.released import from_published, published_names

log = logging.getLogger(__name__)

Function = Callable[[Tensor], Tensor]
"""Rows of numbers ``B D`` of ``B T C H W`` video in 0..1."""

_I3D_FRAMES = 9  # fewer leave less than the two frames that its last pooling takes


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """Whose features are compared. Figures of different networks say nothing of each other."""

    kind: Literal["random", "i3d", "encoder", "classifier"] = "random"
    """``random``: a small I3D with random weights, for smoke tests; ``i3d``: the published one; ``encoder``: the mean
    of an encoder's tokens; ``classifier``: the logits of a run of ``recognition.*``."""
    source: str | None = None
    """``i3d``: a file in one of the published layouts; ``encoder``: a run folder or ``hf:OWNER/NAME``;
    ``classifier``: a run folder."""
    layer: Literal["logits", "pooled"] = "logits"
    """Of ``i3d``: 400 logits, as published, or the 1,024 means that they are made from."""
    norm_eps: Weight = 1e-3
    """Of ``i3d``: the small number in its norms; TensorFlow's is 1e-3, VideoGPT's copy computes with 1e-5."""
    size: Count | None = None
    """Height and width of what the network sees; by default its own: 224 for I3D, 64 for the random one."""
    num_frames: Count | None = None
    """Frames of a window; by default the whole clip, or what an encoder was trained on."""
    batch_size: Count = 16
    """Windows encoded at once."""

    def check(self, num_videos: int | None, num_frames: int) -> None:
        """See that the network is at hand and takes clips of ``num_frames``, and that there are two to compare.

        Raises:
            UserError: it is not, or does not, or there are not: a distance is of spreads.
        """
        if num_videos is not None and num_videos < 2:
            raise UserError(f"a Frechet distance is of two videos or more, and {num_videos} is asked for")
        self.build(torch.device("cpu")).window(num_frames)

    def build(self, device: torch.device) -> VideoFeatures:
        """Load the network.

        Raises:
            UserError: there is no source where one is needed, or it cannot be used.
        """
        if self.kind == "random":
            network = I3D.stand_in()
            return self._shown(network.name, network, network.pooled, device, size=64)
        if self.source is None:
            raise UserError(f"features of kind {self.kind!r} need a source: give --features.source")
        name = _plain(self.source.rstrip("/").rpartition("/")[2])
        if self.kind == "i3d":
            network = load_i3d(Path(self.source), norm_eps=self.norm_eps)
            name = f"i3d_{Path(name).stem}_{self.layer}"
            if self.layer == "pooled":
                return self._shown(name, network, network.pooled, device, size=224, least=_I3D_FRAMES)
            more = {"size": 224, "least": _I3D_FRAMES, "classifies": True}
            return self._shown(name, network, network.classify, device, **more)
        # Here, because loading a run imports every protocol of evaluation, this one too.
        from filmstrip.runs.loading import load, load_objective

        if self.kind == "encoder":
            encoder = load(self.source, device)
            own = {"size": encoder.clip.size, "num_frames": encoder.clip.num_frames}
            return self._shown(name, encoder, lambda video: encoder(video).pooled(), device, **own)
        objective, run = load_objective(self.source, device)
        if not isinstance(objective, Classifier):
            raise UserError(f"{self.source} holds a {type(objective).__name__}, which is no classifier")
        own = {"size": run.data.clip.size, "num_frames": run.data.clip.num_frames}
        return self._shown(f"{name}_logits", objective, objective.classify, device, classifies=True, **own)

    def _shown(
        self, name: str, network: nn.Module, function: Function, device: torch.device, **own: int | bool | None
    ) -> VideoFeatures:
        """The network's ``own`` preprocessing, unless these settings say otherwise."""
        asked = {"size": self.size, "num_frames": self.num_frames, "batch_size": self.batch_size}
        own |= {key: value for key, value in asked.items() if value is not None}
        return VideoFeatures(name, network.to(device), function, device, **own)


class VideoFeatures:
    """A network that sees videos as rows of numbers. With ``classifies``, these are the logits of classes."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        function: Function,
        device: torch.device,
        *,
        size: int,
        num_frames: int | None = None,
        least: int = 1,
        batch_size: int = 16,
        classifies: bool = False,
    ) -> None:
        self.name, self.classifies = name, classifies
        self._network, self._function, self._device = network, function, device
        self._size, self._num_frames, self._least, self._batch_size = size, num_frames, least, batch_size

    def label(self, num_frames: int) -> str:
        """Network, preprocessing and frames for the name of a metric of clips of ``num_frames``."""
        return f"{self.name}/{self._size}px_bilinear/{self._num_frames or num_frames}f"

    def window(self, num_frames: int) -> int:
        """How many frames of clips of ``num_frames`` the network sees at once.

        Raises:
            UserError: the clips are too short for a window, or for the network.
        """
        length = self._num_frames or num_frames
        if num_frames < length or length < self._least:
            raise UserError(
                f"{self.name} sees {max(length, self._least)} frames or more at once, and these clips have "
                f"{num_frames}: make clips longer (--data.clip.num-frames) or windows shorter"
            )
        return length

    def __call__(self, video: Tensor) -> Tensor:
        """Features ``N D`` (float32, on the CPU) of the windows of ``B T C H W`` video, uint8 or 0..1.

        Raises:
            UserError: the video is too short for a window, or for the network.
        """
        length = self.window(video.shape[1])
        count = video.shape[1] // length
        windows = rearrange(video[:, : count * length], "b (n t) c h w -> (b n) t c h w", n=count)
        with inference(self._network):
            return torch.cat([self._encode(part) for part in windows.split(self._batch_size)]).float().cpu()

    def _encode(self, windows: Tensor) -> Tensor:
        frames = as_float(to_levels(rearrange(windows.to(self._device), "b t c h w -> (b t) c h w")))
        if frames.shape[-2:] != (self._size, self._size):
            frames = F.interpolate(frames, size=(self._size, self._size), mode="bilinear", align_corners=False)
        return self._function(rearrange(frames, "(b t) c h w -> b t c h w", b=len(windows)))


@dataclass(frozen=True)
class Seen:
    """What a feature network saw of videos, ``N D`` of either side, all of one length in frames."""

    real: Tensor | None
    made: Tensor | None
    num_frames: int


class VideoDistance:
    """The Frechet distance between real video and made video, gathered batch by batch."""

    def __init__(self, network: VideoFeatures) -> None:
        self._network = network
        self._pair = FrechetPair()
        self.label = ""
        """Network, preprocessing and frames, for the names of metrics."""
        self.made_logits: list[Tensor] = []
        """Of made video, if the network classifies."""

    def look(self, real: Tensor | None = None, made: Tensor | None = None) -> Seen:
        """What the network sees of ``B T C H W`` video of either side; all of one length."""
        length = next(video.shape[1] for video in (real, made) if video is not None)
        return Seen(*(None if video is None else self._network(video) for video in (real, made)), length)

    def add(self, seen: Seen) -> None:
        """Take in what the network saw, in this process or in another."""
        self.label = self._network.label(seen.num_frames)
        self._pair.update(seen.real, seen.made)
        if seen.made is not None and self._network.classifies:
            self.made_logits.append(seen.made)

    def values(self, name: str) -> Iterator[tuple[str, float]]:
        """Yield the distance, what of it is owed to the number of samples, and what is left; warn if that is much.

        Names say network, preprocessing, frames and the smaller side's number of samples.

        Raises:
            UserError: a side has fewer than two samples.
        """
        try:
            found = self._pair.compute()
        except ValueError as error:
            raise UserError(f"{name} cannot be measured: {error}") from None
        if found.warning:
            log.warning("%s/%s: %s", name, self.label, found.warning)
        label = f"{self.label}/n{min(found.counts)}"
        yield f"{name}/{label}", found.distance
        if not math.isnan(found.bias):
            yield f"{name}_bias/{label}", found.bias
            yield f"{name}_unbiased/{label}", found.corrected


def load_i3d(path: Path, *, norm_eps: float = 1e-3) -> I3D:
    """The published network with the weights of a file, in evaluation mode.

    The TorchScript ``i3d_torchscript.pt`` is a program, which is never run here; whoever trusts it takes the weights
    out once:

        import torch
        from safetensors.torch import save_file
        state = torch.jit.load("i3d_torchscript.pt", map_location="cpu").state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, "i3d.safetensors")

    Raises:
        UserError: the file cannot be read without running it, or is not I3D in a layout that is known.
    """
    try:
        theirs = read_weights(path)
    except UserError as error:
        if "torchscript" in str(error).lower():
            raise UserError(
                f"{path} is TorchScript, a program that is not run here: take its weights out once with "
                "torch.jit.load(path).state_dict() and safetensors' save_file "
                "(filmstrip.evals.video_features.load_i3d shows how)"
            ) from None
        raise
    with torch.device("meta"):
        any_i3d = I3D()
    heads = [published_names(any_i3d, layout.name)["head.weight"] for layout in any_i3d.layouts()]
    classes = next((len(theirs[key]) for key in heads if key in theirs), any_i3d.head.out_features)
    network = I3D(num_classes=classes, norm_eps=norm_eps)
    try:
        ours = from_published(theirs, network)
        network.load_state_dict(ours, strict=False)  # the normalisation of pixels is ours, batches are not counted
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{path} does not fit I3D: {str(error).splitlines()[1].strip()}") from None
    return network.eval()


def inception_score(logits: Tensor, splits: int = 1) -> tuple[float, float]:
    """``exp(E KL(p(y|x) | p(y)))`` of logits ``N K`` (Salimans et al. 2016): mean and deviation over equal splits.

    Between 1 (every sample looks like the whole) and K (each is one class for sure, all equally often).

    Raises:
        ValueError: there are fewer samples than splits.
    """
    if splits < 1 or len(logits) < splits:
        raise ValueError(f"{len(logits)} samples cannot be divided into {splits} splits")
    scores = []
    for part in logits.double().tensor_split(splits):
        conditional = part.log_softmax(dim=1)
        marginal = conditional.exp().mean(dim=0)
        divergence = (conditional.exp() * conditional).sum(dim=1) - torch.xlogy(marginal, marginal).sum()
        # E sum_y p(y|x) log p(y) is the marginal's own negative entropy
        scores.append(divergence.mean().exp())
    found = torch.stack(scores)
    return float(found.mean()), float(found.std(correction=0))


def _plain(name: str) -> str:
    """A name without what the names of metrics cannot hold."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_")
