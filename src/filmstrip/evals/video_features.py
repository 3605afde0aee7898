"""The feature networks of FVD and the inception score, and their preprocessing.

Real and generated video are preprocessed alike, and the names of metrics state it:

1. pixels are rounded to 8 bits, as in a file;
2. whole clips, or consecutive windows of ``num_frames`` (each is one sample; remaining frames are dropped);
3. frames are resized to ``size x size``, bilinearly, without antialiasing (half-pixel centres);
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
from filmstrip.models.i3d import I3D, I3DArchitecture
from filmstrip.protocols import Classifier, as_float
from filmstrip.runs.encoders import load
from filmstrip.runs.loading import load_objective
from filmstrip.weights.files import read_weights
from filmstrip.weights.released import from_published, published_names

log = logging.getLogger(__name__)

Function = Callable[[Tensor], Tensor]
"""A feature function: ``B D`` of ``B T C H W`` video in 0..1."""

_I3D_FRAMES = 9  # with fewer, its last pooling has less than its two frames


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """The network whose features are compared. Distances of different networks are not comparable."""

    kind: Literal["random", "i3d", "encoder", "classifier"] = "random"
    """Kind of network. ``random``: a small I3D with random weights, for smoke tests; ``i3d``: the published one;
    ``encoder``: the mean of an encoder's tokens; ``classifier``: the logits of a run of ``recognition.*``."""
    source: str | None = None
    """Weights of the network. ``i3d``: a file in one of the published layouts; ``encoder``: a run folder or
    ``hf:OWNER/NAME``; ``classifier``: a run folder."""
    layer: Literal["logits", "pooled"] = "logits"
    """Layer of ``i3d``: the 400 logits, as published, or the 1,024 pooled features before them."""
    norm_eps: Weight = 1e-3
    """Epsilon of the norms of ``i3d``: 1e-3 in TensorFlow, 1e-5 in VideoGPT's copy."""
    size: Count | None = None
    """Height and width of the network's input, pixels; by default its own: 224 for I3D, 64 for the random one."""
    num_frames: Count | None = None
    """Number of frames of a window; by default the whole clip, or what an encoder was trained on."""
    batch_size: Count = 16
    """Maximum number of windows per batch."""

    def check(self, num_videos: int | None, num_frames: int) -> None:
        """Check that the network is available and accepts clips of ``num_frames``, and that there are at least two.

        Raises:
            UserError: one of these does not hold; covariances need two samples.
        """
        if num_videos is not None and num_videos < 2:
            raise UserError(f"a Frechet distance needs at least two videos, got {num_videos}")
        self.build(torch.device("cpu")).window(num_frames)

    def build(self, device: torch.device) -> VideoFeatures:
        """Load the network.

        Raises:
            UserError: ``source`` is missing or cannot be used.
        """
        if self.kind == "random":
            network = I3D.stand_in()
            return self._with_settings(network.name, network, network.pooled, device, size=64)
        if self.source is None:
            raise UserError(f"features of kind {self.kind!r} need a source: set --features.source")
        name = _plain(self.source.rstrip("/").rpartition("/")[2])
        if self.kind == "i3d":
            network = load_i3d(Path(self.source), norm_eps=self.norm_eps)
            name = f"i3d_{Path(name).stem}_{self.layer}"
            if self.layer == "pooled":
                return self._with_settings(name, network, network.pooled, device, size=224, min_frames=_I3D_FRAMES)
            return self._with_settings(
                name, network, network.classify, device, size=224, min_frames=_I3D_FRAMES, classifies=True
            )
        if self.kind == "encoder":
            encoder = load(self.source, device)
            clip = encoder.clip
            return self._with_settings(
                name,
                encoder,
                lambda video: encoder(video).pooled(),
                device,
                size=clip.size,
                num_frames=clip.num_frames,
            )
        objective, run = load_objective(self.source, device)
        if not isinstance(objective, Classifier):
            raise UserError(f"{self.source} holds a {type(objective).__name__}, which is not a classifier")
        clip = run.data.clip
        return self._with_settings(
            f"{name}_logits",
            objective,
            objective.classify,
            device,
            size=clip.size,
            num_frames=clip.num_frames,
            classifies=True,
        )

    def _with_settings(
        self,
        name: str,
        network: nn.Module,
        function: Function,
        device: torch.device,
        *,
        size: int,
        num_frames: int | None = None,
        min_frames: int = 1,
        classifies: bool = False,
    ) -> VideoFeatures:
        """The network with its own ``size`` and ``num_frames``, unless these settings override them."""
        return VideoFeatures(
            name,
            network.to(device),
            function,
            device,
            size=size if self.size is None else self.size,
            num_frames=num_frames if self.num_frames is None else self.num_frames,
            min_frames=min_frames,
            batch_size=self.batch_size,
            classifies=classifies,
        )


class VideoFeatures:
    """A network that maps videos to features; with ``classifies``, to class logits."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        function: Function,
        device: torch.device,
        *,
        size: int,
        num_frames: int | None = None,
        min_frames: int = 1,
        batch_size: int = 16,
        classifies: bool = False,
    ) -> None:
        self.name, self.classifies = name, classifies
        self._network, self._function, self._device = network, function, device
        self._size, self._num_frames, self._min_frames, self._batch_size = size, num_frames, min_frames, batch_size

    def label(self, num_frames: int) -> str:
        """Network, preprocessing and frames, for the name of a metric on clips of ``num_frames``."""
        return f"{self.name}/{self._size}px_bilinear/{self._num_frames or num_frames}f"

    def window(self, num_frames: int) -> int:
        """Number of frames of a window in clips of ``num_frames``.

        Raises:
            UserError: the clips are too short for a window, or for the network.
        """
        length = self._num_frames or num_frames
        if num_frames < length or length < self._min_frames:
            raise UserError(
                f"{self.name} needs at least {max(length, self._min_frames)} frames, and these clips have "
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
class FeaturePair:
    """Features of real and generated videos of one length, ``N D`` each, or none."""

    real: Tensor | None
    generated: Tensor | None
    num_frames: int


class VideoDistance:
    """The Frechet distance between real and generated video, accumulated batch by batch."""

    def __init__(self, network: VideoFeatures) -> None:
        self._network = network
        self._pair = FrechetPair()
        self.label = ""
        """Network, preprocessing and frames, for the names of metrics."""
        self.generated_logits: list[Tensor] = []
        """Logits of generated video, if the network classifies."""

    def features(self, real: Tensor | None = None, generated: Tensor | None = None) -> FeaturePair:
        """Features of ``B T C H W`` video of either side, all of one length."""
        length = next(video.shape[1] for video in (real, generated) if video is not None)
        return FeaturePair(
            None if real is None else self._network(real),
            None if generated is None else self._network(generated),
            length,
        )

    def add(self, features: FeaturePair) -> None:
        """Add features, of this process or another."""
        self.label = self._network.label(features.num_frames)
        self._pair.update(features.real, features.generated)
        if features.generated is not None and self._network.classifies:
            self.generated_logits.append(features.generated)

    def values(self, name: str) -> Iterator[tuple[str, float]]:
        """Yield the distance, its bias from the number of samples, and the corrected value; warn if the bias is
        large.

        Names state network, preprocessing, frames and the smaller side's number of samples.

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

    The TorchScript ``i3d_torchscript.pt`` is a program, which is never run here; those who trust it take the weights
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
        any_i3d = I3D(I3DArchitecture(num_classes=400))
    heads = [published_names(any_i3d, layout.name)["head.weight"] for layout in any_i3d.layouts()]
    assert any_i3d.head is not None, "it is built with classes"
    classes = next((len(theirs[key]) for key in heads if key in theirs), any_i3d.head.out_features)
    network = I3D(I3DArchitecture(num_classes=classes, norm_eps=norm_eps))
    try:
        ours = from_published(theirs, network)
        network.load_state_dict(ours, strict=False)  # the normalisation of pixels is ours, batches are not counted
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{path} does not fit I3D: {str(error).splitlines()[1].strip()}") from None
    return network.eval()


def inception_score(logits: Tensor, splits: int = 1) -> tuple[float, float]:
    """``exp(E KL(p(y|x) | p(y)))`` of logits ``N K`` (Salimans et al. 2016): mean and standard deviation over
    equal splits.

    Between 1 (all samples have the same class distribution) and K (certain classes, uniformly distributed).

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
    """A name without characters that metric names cannot contain."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_")
