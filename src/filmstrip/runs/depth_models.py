"""Networks of ``transformers`` that estimate depth, from the Hub or a local folder in its layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.protocols import as_float
from filmstrip.runs.hub import hub_folder
from filmstrip.weights.hub import config_of, preprocessing_of, shards_of, sizes_of_frames, statistics_of

KINDS = ("dpt", "depth_anything")
"""Families by ``model_type``; their depth is relative, and larger where things are nearer, or they say otherwise."""
_AT_ONCE = 8


@torch.no_grad()
def estimate_depth(source: str, video: Tensor, device: torch.device) -> Tensor:
    """Depth maps ``T 1 H W``, larger where things are nearer, of square frames ``T 3 H W``, uint8 or 0..1.

    Frames are scaled to the size and by the statistics that the folder says, and maps back to the frames' size.
    Estimates in metres are turned into their inverse. Only safetensors are read, and no code of the folder is run.

    Raises:
        UserError: there is no such network, it is of another kind, its weights do not fit, or transformers is not
            installed.
    """
    try:
        import transformers
    except ImportError:
        raise UserError(
            "depth is estimated by a network of transformers, which is not installed: pip install "
            "'filmstrip[language]'"
        ) from None
    folder = hub_folder(source)
    config = config_of(source, folder)
    if (kind := config.get("model_type")) not in KINDS:
        raise UserError(
            f"{source} is a {kind or 'model of unknown type'}; the networks that can estimate depth are: "
            f"{', '.join(KINDS)}"
        )
    shards_of(source, folder)
    try:
        network, report = transformers.AutoModelForDepthEstimation.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype="float32",
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{source} cannot be loaded as an estimator of depth: {str(error).splitlines()[0]}") from None
    if lacking := sorted((*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"]))):
        raise UserError(f"{source} lacks weights, or has them in other shapes: {', '.join(lacking[:5])}")
    preprocessing = preprocessing_of(folder)
    size = sizes_of_frames(preprocessing)[0] or config.get("image_size") or video.shape[-1]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics_of(preprocessing).values())
    pixels = F.interpolate(as_float(video), (size, size), mode="bicubic", align_corners=False, antialias=True)
    pixels = (pixels.clamp(0, 1) - mean) / std
    network = network.to(device).eval()
    maps = torch.cat([network(part.to(device)).predicted_depth.cpu() for part in pixels.split(_AT_ONCE)])[:, None]
    if getattr(network.config, "depth_estimation_type", "relative") == "metric":
        maps = 1 / maps.clamp(min=1e-3)
    return F.interpolate(maps, video.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
