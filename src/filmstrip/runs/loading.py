"""Using what was trained: encoders and objectives from a run folder or from the Hub, with their own preprocessing."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.reading.views import read_views
from filmstrip.data.sample import Source
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.inference import device_of, encoder_of, inference
from filmstrip.models.video_transformer import FrameTransformer
from filmstrip.models.vit import ViT
from filmstrip.objectives.elastic import ElasticTokenizer, mean_squared_error
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Encoder, Features, Objective, Published, Tokenizer, Tokens
from filmstrip.runs.config import Run, from_json, read_config, to_json
from filmstrip.runs.run_folder import RunFolder
from filmstrip.weights.files import read_weights
from filmstrip.weights.fingerprint import fingerprint
from filmstrip.weights.keymap import check_names, some
from filmstrip.weights.released import load_published

log = logging.getLogger(__name__)

_LAST_NORM = r"norm\.(?:weight|bias)"
"""An encoder's own last norm, which a classifier has after pooling instead."""
_OF_VIDEO = (r"time_pos_embed", r"blocks\.\d+\.time_\w+\..*")
"""What only a video's transformer has: it starts as it is, or as ``load_image`` says."""


class VideoEncoder(nn.Module):
    """A trained encoder that reads files by itself: cut as in evaluation, ``clip`` says how."""

    def __init__(self, encoder: Encoder, clip: Clip, backend: str = "auto") -> None:
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

        Of a file with fewer frames there are as many clips as that.

        Raises:
            DecodeError: the file cannot be read.
        """
        return read_views(path, self.clip, num_clips=num_clips, backend=self.backend).video

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video, ``uint8`` or 0..1; with ``layers`` also return every layer's tokens."""
        return self.encoder(video.to(device_of(self)), layers=layers)

    def encode(self, paths: Path | str | Sequence[Path | str]) -> Features:
        """The features of one clip of each file (``B`` files), without gradients."""
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        with inference(self):
            return self(torch.cat([self.read(path) for path in paths]))


class VideoTokenizer(nn.Module):
    """A trained tokenizer, and how the clips that it codes are cut from files."""

    def __init__(self, tokenizer: Tokenizer, clip: Clip, backend: str = "auto") -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.clip = clip
        self.backend = backend
        self.eval()

    @property
    def codebook_size(self) -> int | None:
        """How many ids there are; none for continuous tokens."""
        return getattr(self.tokenizer, "codebook_size", None)

    @property
    def fingerprint(self) -> str:
        """A short name for the weights that code and decode; a prior's copy of this tokenizer has the same."""
        return tokenizer_fingerprint(self.tokenizer)

    def encode(self, video: Tensor, error: float | None = None) -> Tokens:
        """Code ``B T C H W`` video, ``uint8`` or 0..1; with an ``error``, in the fewest tokens that meet it.

        The error is squared, a block's mean over pixels in 0..1.

        Raises:
            UserError: there is an error to meet, and this tokenizer cannot be told one.
        """
        video = video.to(device_of(self))
        if error is None:
            return self.tokenizer.encode(video)
        if not isinstance(self.tokenizer, ElasticTokenizer):
            raise UserError(
                f"{type(self.tokenizer).__name__} cannot be told an --error to meet: only a tokenizer that looks for "
                "the shortest lengths can, such as tokenizers.elastictok"
            )
        fitted = self.tokenizer.encode_to(video, error, method="binary", bins=100, distance=mean_squared_error)
        return fitted.tokens

    def rows(self, tokens: Tokens) -> Tensor:
        """Tokens as they are written, ``B N D``: latents, or ids with codebooks last, int16 if that holds them."""
        if tokens.ids is None:
            return tokens.latents
        places = tokens.grid.t * tokens.grid.h * tokens.grid.w
        dtype = torch.int16 if self.codebook_size <= 2**15 else torch.int32
        return rearrange(tokens.ids, "b (n g) -> b n g", n=places).to(dtype)

    def decode(self, tokens: Tokens) -> Tensor:
        """Rebuild ``B T C H W`` video in 0..1.

        Raises:
            ValueError: the tokens are of another kind or number than this tokenizer's, or outside its codebook.
        """
        return self.tokenizer.decode(tokens)


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """A short name for the weights of a tokenizer that code and decode; what chooses lengths is not among them."""
    coder = getattr(tokenizer, "tokenizer", tokenizer)
    return fingerprint(coder, without=getattr(coder, "training_only", ()))


def load_tokenizer(folder: str | Path, device: torch.device | str | None = None) -> VideoTokenizer:
    """A trained tokenizer from its run folder, or from that of a prior, which owns its own.

    Raises:
        UserError: this is no run folder, or what it holds is no tokenizer.
    """
    objective, run = load_objective(folder, device)
    # A regressor of lengths owns a tokenizer too, but is one itself: it codes in the lengths that it predicts.
    tokenizer = objective if isinstance(objective, Tokenizer) else getattr(objective, "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which is no tokenizer: give a run of tokenizers.*"
        )
    return VideoTokenizer(tokenizer, run.data.clip, run.data.backend)


def load(source: str | Path, device: torch.device | str | None = None) -> VideoEncoder:
    """A trained encoder from a run folder, ``hf:OWNER/NAME``, or a local folder in the Hub's layout.

    By default it goes to a CUDA device where there is one.

    Raises:
        UserError: there is no such source, or what it holds has no encoder.
    """
    if is_run(source):
        objective, run = load_objective(source, device)
        return VideoEncoder(encoder_of(objective), run.data.clip, run.data.backend)
    from filmstrip.weights.hub import load_hub

    encoder, clip = load_hub(str(source))
    return VideoEncoder(encoder, clip).to(default_device(device))


def load_objective(folder: str | Path, device: torch.device | str | None = None) -> tuple[Objective, Run]:
    """A trained objective, in evaluation mode, and the run that made it, from its folder alone.

    Raises:
        UserError: this is no run folder, it holds no weights yet, or they do not fit its configuration.
    """
    folder = Path(folder)
    run = read_config(folder / "config.json")
    objective = run.objective.build()
    RunFolder(folder).load_weights(objective)
    return objective.to(default_device(device)).eval(), run


def start(objective: Objective, source: str | Path) -> None:
    """Begin where ``source`` ended, in place: with its encoder or predictor, or, without either, all its weights.

    A file is read as weights that the method's authors released.

    Raises:
        UserError: the source has no such part, or is no run of the same method, or its weights have other shapes.
    """
    # A part may be called an encoder and offer no features to start with, as TECO's.
    if isinstance(getattr(objective, "encoder", None), Encoder):
        start_encoder(objective, source)
        return
    if Path(source).is_file():
        _start_from_file(objective, Path(source))
        return
    given, _ = load_objective(source, "cpu")
    if (part := getattr(objective, "predictor", None)) is not None:
        learnt = getattr(given, "predictor", None)
        if learnt is None:
            raise UserError(f"{source} holds a {type(given).__name__}, which has no predictor to start this one with")
        _copy(learnt.state_dict(), part, source)
        return
    if type(given) is not type(objective):
        kinds = f"{type(given).__name__}, and this run trains a {type(objective).__name__}"
        raise UserError(f"{source} holds a {kinds}, which has no encoder: start it from a run of its own kind")
    _copy(given.state_dict(), objective, source)


def _start_from_file(objective: Objective, path: Path) -> None:
    if not isinstance(objective, Published):
        raise UserError(f"no released layout of {type(objective).__name__} is known: start it from a run folder")
    try:
        weights = objective.from_published(read_weights(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    state = objective.state_dict()
    _check_shapes(weights, {name: state[name] for name in weights}, path)
    objective.load_state_dict(weights, strict=False)


def with_sizes_of_init(run: Run, typed: Collection[str] = ()) -> Run:
    """This run with the sizes of the encoder that ``run.init`` names in the Hub's layout, and clips of its size.

    Runs and files of released weights say nothing here: their sizes have to be those of ``run``. ``typed`` are the
    dotted names of settings that a person gave. Clips that were given stay where the encoder's positions follow them.

    Raises:
        UserError: a setting that was given contradicts the encoder's; or there is no such encoder.
    """
    if not run.init or Path(run.init).is_file() or is_run(run.init):
        return run
    with torch.device("meta"):
        encoder = getattr(run.objective.build(), "encoder", None)
    if not isinstance(encoder, ViT) and not hasattr(encoder, "load_image"):
        return run
    from filmstrip.weights.hub import hub_sizes

    sizes, own = hub_sizes(run.init), run.objective
    if "patch_size" in sizes:
        patch, tubelet = sizes["patch_size"], sizes.pop("tubelet", None)
        if isinstance(own.patch_size, tuple):
            sizes["patch_size"] = (own.patch_size[0] if tubelet is None else tubelet, patch, patch)
    clip = {key: sizes.pop(key) for key in ("num_frames", "size") if key in sizes}
    if isinstance(encoder, ViT):
        clip = {k: v for k, v in clip.items() if not {f"objective.{k}", f"data.clip.{k}"}.intersection(typed)}
    wanted = {f"objective.{key}": value for key, value in sizes.items() if hasattr(own, key)}
    wanted |= {f"{part}.{key}": value for key, value in clip.items() for part in ("objective", "data.clip")}
    changed = []
    for name, value in wanted.items():
        part, _, key = name.rpartition(".")
        here = getattr(own if part == "objective" else run.data.clip, key)
        if here != value and name in typed:
            raise UserError(f"{name} is {here} and the encoder of {run.init} has {value}: leave it out")
        if here != value:
            changed.append(f"{key} {value}")
    if not changed:
        return run
    log.warning("%s says how large the network is: %s", run.init, ", ".join(dict.fromkeys(changed)))
    run = run.on_clip(_clip_of(run.data.clip, clip, typed))
    return replace(run, objective=replace(run.objective, **{k: v for k, v in sizes.items() if hasattr(own, k)}))


def _clip_of(clip: Clip, sizes: Mapping[str, int], typed: Collection[str]) -> Clip:
    """A clip of another length and size, whose training frames are as much larger than it as they were."""
    if "size" in sizes and "data.clip.short_side" not in typed:
        low, high = (round(side * sizes["size"] / clip.size) for side in clip.short_side)
        clip = replace(clip, short_side=(low, high))
    return replace(clip, **sizes)


def start_encoder(objective: Objective, source: str | Path) -> None:
    """Copy the encoder of a run or of the Hub into ``objective``, in place.

    A norm after the last layer that only the source has is left out. An image's transformer starts a video's as that
    says (``load_image``). A file is read as released weights (:mod:`filmstrip.weights.released`).

    Raises:
        UserError: either has no encoder, or the source lacks a weight, has it in another shape, or has one more.
            Nothing is copied then.
    """
    target = encoder_of(objective)
    if Path(source).is_file():
        load_published(Path(source), objective, head=False)
        return
    given = load(source, "cpu").encoder
    if isinstance(given, FrameTransformer) and hasattr(target, "load_image"):
        _start_from_image(given, target, source)
    else:
        _copy(given.state_dict(), target, source, spare=(_LAST_NORM,))


def _start_from_image(given: FrameTransformer, target: nn.Module, source: str | Path) -> None:
    image = given.state_dict()
    if given.patch_size[0] > 1:
        _copy(image, target, source, spare=(_LAST_NORM,))
        return
    frames = getattr(target, "frames", target).state_dict()
    check_names(f"{source} cannot start this network: it", image, frames, spare=("cls_token",), optional=_OF_VIDEO)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    try:
        target.load_image(image)
    except RuntimeError as error:
        target.load_state_dict(before)
        raise UserError(f"{source} cannot start this network, which has other shapes: {error}") from None


def _copy(given: Mapping[str, Tensor], target: nn.Module, source: str | Path, spare: Sequence[str] = ()) -> None:
    """Give ``target`` its weights; those of ``given`` that match a pattern of ``spare`` may be left out."""
    wanted = target.state_dict()
    check_names(f"{source} cannot start this network: it", given, wanted, spare=spare)
    _check_shapes(given, wanted, source)
    target.load_state_dict({name: given[name] for name in wanted})


def _check_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str | Path) -> None:
    unlike = [
        f"{name} ({tuple(given[name].shape)} there, {tuple(value.shape)} here)"
        for name, value in wanted.items()
        if given[name].shape != value.shape
    ]
    if unlike:
        raise UserError(f"{source} cannot start this network, which has other shapes: {some(unlike)}")


def with_tokenizer(run: Run, folder: Path | None = None) -> Run:
    """This run with the tokenizer of ``objective.tokenizer_run``, if it names one: what its config.json should say.

    Where ``folder`` holds this run already, begun, it is asked instead: the tokenizer's run is not needed any more.

    It may also be the run of a prior, which owns one.

    Raises:
        UserError: that is no run folder, or it has no tokenizer.
    """
    objective = run.objective
    if not isinstance(objective, LatentConfig) or objective.tokenizer_run is None:
        return run
    if folder is not None and RunFolder.is_begun(folder):
        begun = read_config(folder / "config.json").objective
        if isinstance(begun, LatentConfig) and begun.tokenizer_run == objective.tokenizer_run:
            return replace(run, objective=replace(objective, tokenizer=begun.tokenizer))
    tokenizer = read_config(Path(objective.tokenizer_run) / "config.json").objective
    if isinstance(tokenizer, LatentConfig):  # a prior's run, which owns one
        tokenizer = tokenizer.tokenizer
    if tokenizer is None:
        raise UserError(f"{objective.tokenizer_run} has no tokenizer: give a run of tokenizers.*")
    return replace(run, objective=replace(objective, tokenizer=tokenizer))


def start_tokenizer(objective: Objective, run: Run) -> None:
    """Load the frozen tokenizer's weights from ``run.objective.tokenizer_run``.

    Raises:
        UserError: that run has no weights yet, or they do not fit; or no run is named, and it was not said that the
            tokenizer may be untrained.
    """
    if not isinstance(run.objective, LatentConfig) or run.objective.tokenizer is None:
        return
    folder = run.objective.tokenizer_run
    if folder is None:
        whole = run.init and not any(hasattr(objective, part) for part in ("encoder", "predictor"))
        if whole:  # the run that all weights come from had one
            return
        if not run.objective.untrained_tokenizer:
            raise UserError(
                "the tokenizer is untrained, and codes of noise are nothing to model: name the run of a trained one "
                "(--objective.tokenizer-run FOLDER), or ask for this (--objective.untrained-tokenizer)"
            )
        log.warning("the tokenizer is untrained: name a trained one with --objective.tokenizer-run FOLDER")
        return
    run_there, _ = load_objective(folder, "cpu")
    given = getattr(run_there, "tokenizer", run_there).state_dict()
    objective.tokenizer.load_state_dict({name: given[name] for name in objective.tokenizer.state_dict()})


def check_tokenizer(objective: Objective, source: Source) -> None:
    """See that cached tokens are those of the tokenizer that a prior holds.

    Raises:
        UserError: another tokenizer, or one with other weights, made them.
    """
    tokenizer = getattr(objective, "tokenizer", None)
    if source.tokenizer is None or tokenizer is None:
        return
    if tokenizer_fingerprint(tokenizer) != source.tokenizer:
        raise UserError(
            f"the tokens in {source.root} were made by another tokenizer than the one that this run decodes with: "
            "name theirs (--objective.tokenizer-run FOLDER)"
        )


def save_data_info(info: DataInfo, folder: Path) -> None:
    """Keep what the data told the objective in the run folder: prediction needs the names of the classes."""
    write_json(to_json(info), folder / "data.json")


def load_data_info(folder: str | Path) -> DataInfo:
    """What the data of a run told its objective.

    Raises:
        UserError: the folder does not say, or what it says is damaged.
    """
    path = Path(folder) / "data.json"
    if not path.exists():
        raise UserError(f"{folder} does not say what its data were: it has no {path.name}")
    try:
        info = from_json(json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or cannot be read: {error}") from None
    if not isinstance(info, DataInfo):
        raise UserError(f"{path} does not describe the data of a run")
    return info


def load_classes(folder: str | Path) -> tuple[str, ...]:
    """The names of the classes that a run was trained on, in the order of its logits.

    Raises:
        UserError: the folder does not say.
    """
    return load_data_info(folder).classes


def is_run(source: str | Path) -> bool:
    """Whether this is a run folder; the Hub's layout has a config.json too, without our type tags."""
    path = Path(source) / "config.json"
    if str(source).startswith("hf:") or not path.exists():
        return False
    try:
        return "type" in json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device that was asked for; otherwise CUDA where there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
