"""Trained encoders, from a run folder or from the Hub, with their own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.views import read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, encoder_of, inference
from filmstrip.protocols import Classifier, EncoderModule, Features, Objective
from filmstrip.runs.contents import CONFIG, DATA, is_run
from filmstrip.runs.evaluation import Evaluation
from filmstrip.runs.hub import is_on_hub, load_hub
from filmstrip.runs.loading import default_device, load_classes, load_objective
from filmstrip.video.decode import Backend
from filmstrip.video.images import is_image
from filmstrip.weights.keymap import check_names


class VideoEncoder(nn.Module):
    """A trained encoder that reads files by itself: cut as in evaluation, ``clip`` says how."""

    def __init__(self, encoder: EncoderModule, clip: Clip, backend: Backend = "auto") -> None:
        super().__init__()
        self.encoder = encoder
        self.clip = clip
        self.backend = backend
        self.eval()

    @property
    def width(self) -> int:
        """D, the size of a token."""
        return self.encoder.width

    def read(self, path: Path | str, num_clips: int = 1) -> Tensor:
        """``num_clips`` clips, evenly spaced along the file, centre crop: ``num_clips T C H W`` uint8.

        Of a file with fewer frames there are as many clips as that. An image is one frame, if the encoder takes clips
        of any length, and otherwise a clip that stands still.

        Raises:
            DecodeError: the file cannot be read.
        """
        single = is_image(path) and getattr(self.encoder, "any_grid", False)
        clip = replace(self.clip, num_frames=1) if single else self.clip
        return read_views(path, clip, num_clips=num_clips, backend=self.backend).video

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video, ``uint8`` or 0..1; with ``layers`` also return every layer's tokens."""
        return self.encoder(video.to(device_of(self)), layers=layers)

    def encode(self, paths: Path | str | Sequence[Path | str]) -> Features:
        """The features of one clip of each file (``B`` files), without gradients."""
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        with inference(self):
            return self(torch.cat([self.read(path) for path in paths]))


class EncoderAlone(Objective):
    """An encoder from the Hub in the place of a trained objective, so that protocols of evaluation take it."""

    requires = ()

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.encoder = encoder
        self.eval()


def load_for_evaluation(
    source: str | Path,
    data: Path | None = None,
    device: torch.device | str | None = None,
    *,
    last: bool = False,
) -> tuple[Objective, Data, tuple[Evaluation, ...], tuple[str, ...]]:
    """A run's objective, or an encoder of the Hub; its data, at another path if given; its own evaluations; and the
    names of its classes, where these may differ from the data's.

    Raises:
        UserError: there is no such run or encoder, or an encoder of the Hub is to be evaluated without data.
    """
    if not is_run(source) and (is_on_hub(str(source)) or (Path(source) / CONFIG).exists()):
        if data is None:
            raise UserError(f"{source} has no data of its own: give --data PATH")
        from filmstrip.runs.hub_towers import load_hub_towers  # other sources do without its rooms

        if (both := load_hub_towers(str(source))) is not None:
            return both[0].to(default_device(device)), both[1].at(data), (), ()
        from filmstrip.runs.hub_classifiers import classifier_or_none

        if (whole := classifier_or_none(str(source))) is not None:
            return whole.objective.to(default_device(device)), Data(path=data, clip=whole.clip), (), whole.classes
        encoder, clip = load_hub(str(source))
        objective = EncoderAlone(cast(EncoderModule, encoder))
        return objective.to(default_device(device)), Data(path=data, clip=clip), (), ()
    trained, run = load_objective(source, device, last=last)
    recorded = replace(run.data, reads=run.data.reads.as_recorded(Path(source)))
    if data is None:
        return trained, recorded, run.evals, ()
    classes = load_classes(source) if isinstance(trained, Classifier) and (Path(source) / DATA).exists() else ()
    return trained, recorded.at(data), run.evals, classes


def load(source: str | Path, device: torch.device | str | None = None, *, last: bool = False) -> VideoEncoder:
    """A trained encoder from a run folder, ``hf:OWNER/NAME``, or a local folder in the Hub's layout; of what
    classifies video with its head, as a :class:`~filmstrip.runs.classifiers.VideoClassifier`.

    By default it goes to a CUDA device where there is one. A run that looked for its best step gives the weights of
    that one, or those of its ``last`` step.

    Raises:
        UserError: there is no such source, or what it holds has no encoder.
    """
    from filmstrip.runs.classifiers import VideoClassifier  # made of what is above

    if is_run(source):
        objective, run = load_objective(source, device, last=last)
        if isinstance(objective, Classifier) and (Path(source) / DATA).exists():
            return VideoClassifier(objective, load_classes(source), run.data.clip, run.data.backend)
        return VideoEncoder(encoder_of(objective), run.data.clip, run.data.backend)
    from filmstrip.runs.hub_classifiers import classifier_or_none  # runs do without its rooms

    if (whole := classifier_or_none(str(source))) is not None:
        return VideoClassifier(whole.objective, whole.classes, whole.clip).to(default_device(device))
    encoder, clip = load_hub(str(source))
    return VideoEncoder(cast(EncoderModule, encoder), clip).to(default_device(device))


def copy_encoder(encoder: nn.Module, source: str, part: str) -> None:
    """Copy the encoder of a source into one of its sizes, which may lack the last norm; ``part`` is for messages.

    Raises:
        UserError: there is no such source, or it does not fit.
    """
    given, wanted = load(source, "cpu").encoder.state_dict(), encoder.state_dict()
    check_names(f"{source} cannot be {part}: it", given, wanted, spare=(r"norm\.(?:weight|bias)",))
    encoder.load_state_dict({name: given[name] for name in wanted})
