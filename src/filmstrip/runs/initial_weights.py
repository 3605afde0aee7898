"""What a run begins with: the weights of another run, of the Hub, or that a method's authors released (``init``)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.data.kinds.kind import Kind
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.models.frozen import FrozenEncoder
from filmstrip.models.video_transformer import FrameTransformer, TransformerArchitecture
from filmstrip.models.vit import ViT
from filmstrip.objectives.adaptation import adapt_part
from filmstrip.objectives.config import AroundLearnerConfig, ObjectiveConfig
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import (
    EncoderModule,
    FromImage,
    FromTransformers,
    Grows,
    MaskedPredictor,
    Objective,
    Published,
    Released,
    find_encoder,
)
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.encoders import load
from filmstrip.runs.frozen import found_again, kept_elsewhere, read_references
from filmstrip.runs.hub import hub_architecture, hub_config, hub_sizes, hub_weights
from filmstrip.runs.loading import load_objective
from filmstrip.runs.teachers import start_teachers
from filmstrip.runs.tokenizers import start_tokenizer
from filmstrip.weights.files import read_weights
from filmstrip.weights.hub import HUB
from filmstrip.weights.keymap import check_names, some
from filmstrip.weights.released import copy_published, from_published, has_head, load_published

log = logging.getLogger(__name__)


_LAST_NORM = r"norm\.(?:weight|bias)"
"""An encoder's own last norm, which a classifier has after pooling instead."""


_OF_VIDEO = (r"time_pos_embed", r"blocks\.\d+\.time_\w+\..*")
"""What only a video's transformer has: it starts as it is, or as ``load_image`` says."""


def build_begun(run: Run, folder: Path, *, training: bool) -> Objective:
    """The objective of a run that has begun in ``folder``, with its frozen parts from where they are kept.

    All else has fresh weights. Without ``training``, what only that needs may be missing.

    Raises:
        UserError: the weights of a frozen part are not there, or have changed.
    """
    references = read_references(folder)
    placed = found_again(run, folder, references, training=training)
    objective = placed.objective.build()  # reads what a perceptual distance needs
    if "init" in references and placed.init is not None:
        start(objective, placed.init)
    if "objective.tokenizer_run" in references:
        start_tokenizer(objective, placed)
    if "objective.text_run" in references:
        from filmstrip.runs.text_towers import start_text_tower  # other methods do without its rooms

        start_text_tower(objective, placed)
    start_teachers(objective, placed, training=training, kept=references)
    if run.objective.has_language:
        from filmstrip.runs.language import start_frozen_parts  # other methods do without its rooms

        start_frozen_parts(objective, placed, references)
    objective.kept_elsewhere = kept_elsewhere(run, references)
    if run.lora is not None:
        adapt_part(objective, run.lora)
    return objective


def start(objective: Objective, source: str | Path) -> None:
    """Begin where ``source`` ended, in place: with its encoder or predictor, or, without either, all its weights;
    and with all of them where the method says so (``starts_whole``). Of an objective around another one, its
    ``learner``, that is started.

    A file is read as weights that the method's authors released.

    Raises:
        UserError: the source has no such part, or is no run of the same method, or its weights have other shapes.
    """
    if (learner := getattr(objective, "learner", None)) is not None:
        from filmstrip.objectives.teachers import EncoderOnly  # other methods do without its rooms

        start(learner if isinstance(learner, Objective) else EncoderOnly(learner), source)
        return
    _start(objective, source)
    objective.started()


def _start(objective: Objective, source: str | Path) -> None:
    if objective.starts_whole:
        _start_whole(objective, source)
        return
    # A part may be called an encoder and offer no features to start with, as TECO's.
    if find_encoder(objective) is not None:
        start_encoder(objective, source)
        if isinstance(objective, MaskedPredictor) or objective.starts_rest:
            _start_decoder(objective, source)
        return
    if Path(source).is_file() or (isinstance(objective, Published) and not is_run(source)):
        _start_published(objective, source)
        return
    given, _ = load_objective(source, "cpu")
    if (part := getattr(objective, "predictor", None)) is not None:
        learnt = getattr(given, "predictor", None)
        if learnt is None:
            raise UserError(f"{source} holds a {type(given).__name__}, which has no predictor to start this one with")
        _copy(learnt.state_dict(), part, source)
        return
    _copy_whole(given, objective, source)


def _start_whole(objective: Objective, source: str | Path) -> None:
    """From a run, or from released weights: a file, or a model on the Hub or in its layout."""
    if is_run(source):
        _copy_whole(load_objective(source, "cpu")[0], objective, source)
    elif Path(source).is_file():
        load_published(Path(source), objective)
    elif isinstance(objective, FromTransformers):
        try:
            weights = objective.from_transformers(hub_weights(str(source)))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        wanted = {name: x for name, x in objective.state_dict().items() if not objective.is_fresh(name)}
        weights = {name: x for name, x in weights.items() if not objective.is_fresh(name)}
        check_names(f"{source} cannot start this network: it, by our names,", weights, wanted)
        check_shapes(weights, wanted, source)
        objective.load_state_dict(weights, strict=False)
    else:
        copy_published(hub_weights(str(source)), objective, source)


def _copy_whole(given: Objective, objective: Objective, source: str | Path) -> None:
    if (taken := objective.taken_from(given)) is not None:
        wanted = {name: objective.state_dict()[name] for name in taken}
        check_shapes(taken, wanted, source)
        objective.load_state_dict(taken, strict=False)
        return
    if type(given) is not type(objective):
        kinds = f"{type(given).__name__}, and this run trains a {type(objective).__name__}"
        raise UserError(f"{source} holds a {kinds}: start it from a run of its own kind")
    fresh = [name for name in objective.state_dict() if objective.is_fresh(name)]
    state = given.state_dict()
    if isinstance(objective, Grows):
        state = objective.at_own_length(state)
    _copy(state, objective, source, optional=fresh)


def _start_decoder(objective: Objective, source: str | Path) -> None:
    """Start what a pretrained network has beside its encoder, if the source holds that too."""
    wanted = {
        name: parameter.detach()
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad and not name.startswith("encoder.")
    }
    given: Mapping[str, Tensor] = {}
    if Path(source).is_file():
        theirs = read_weights(Path(source))
        given = from_published(theirs, objective) if has_head(theirs, objective) else {}
        wanted = {name: wanted[name] for name in given if name in wanted}  # it has seen to what is missing
    elif is_run(source):
        other, _ = load_objective(source, "cpu")
        given = other.state_dict() if type(other) is type(objective) else {}
    elif isinstance(objective, FromTransformers):
        given = objective.from_transformers(hub_weights(str(source)))
    given = {name: value for name, value in given.items() if name in wanted}
    if given:
        check_names(f"{source} cannot start this network: it", given, wanted)
        check_shapes(given, wanted, source)
        objective.load_state_dict(given, strict=False)


def _start_published(objective: Objective, source: str | Path) -> None:
    """From a file that the method's authors released, or a model on the Hub or in its layout."""
    if not isinstance(objective, Published):
        raise UserError(f"no released layout of {type(objective).__name__} is known: start it from a run folder")
    theirs = read_weights(Path(source)) if Path(source).is_file() else hub_weights(str(source))
    try:
        weights = objective.from_published(theirs)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    state = objective.state_dict()
    check_shapes(weights, {name: state[name] for name in weights}, source)
    objective.load_state_dict(weights, strict=False)


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
    if isinstance(given, FrozenEncoder) and isinstance(target, Released):
        copy_published(hub_weights(str(source)), objective, source, head=False)
    elif isinstance(given, FrameTransformer) and isinstance(target, FromImage):
        _start_from_image(given, cast(EncoderModule, target), source)
    else:
        state = given.state_dict()
        if isinstance(target, Grows):
            state = target.at_own_length(state)
        _copy(state, target, source, spare=(_LAST_NORM,))


def _start_from_image(given: FrameTransformer, target: EncoderModule, source: str | Path) -> None:
    image = given.state_dict()
    if given.patch_size[0] > 1:
        _copy(image, target, source, spare=(_LAST_NORM,))
        return
    frames = getattr(target, "frames", target).state_dict()
    check_names(f"{source} cannot start this network: it", image, frames, spare=("cls_token",), optional=_OF_VIDEO)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    try:
        cast(FromImage, target).load_image(image)
    except RuntimeError as error:
        target.load_state_dict(before)
        raise UserError(f"{source} cannot start this network, which has other shapes: {error}") from None


def _copy(
    given: Mapping[str, Tensor],
    target: nn.Module,
    source: str | Path,
    spare: Sequence[str] = (),
    optional: Collection[str] = (),
) -> None:
    """Give ``target`` its weights; those of ``given`` that match a pattern of ``spare`` may be left out, and it may
    lack the ``optional`` ones."""
    wanted = {name: value for name, value in target.state_dict().items() if name in given or name not in optional}
    check_names(f"{source} cannot start this network: it", given, wanted, spare=spare)
    check_shapes(given, wanted, source)
    target.load_state_dict({name: given[name] for name in wanted}, strict=not optional)


def check_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str | Path) -> None:
    """See that the weights that a network is ``given`` have the shapes of those that it has.

    Raises:
        UserError: some have others.
    """
    unlike = [
        f"{name} ({tuple(given[name].shape)} there, {tuple(value.shape)} here)"
        for name, value in wanted.items()
        if given[name].shape != value.shape
    ]
    if unlike:
        raise UserError(f"{source} cannot start this network, which has other shapes: {some(unlike)}")


def with_sizes_of_init(run: Run, typed: Collection[str] = ()) -> Run:
    """This run with the sizes of the encoder that ``run.init`` names in the Hub's layout, and clips of its size.

    Runs and files of released weights say nothing here: their sizes have to be those of ``run``. But the ``learner``
    of an objective around another one becomes that of a run whose weights would not fit it, or the encoder of the
    Hub's layout. ``typed`` are the dotted names of settings that a person gave. Clips that were given stay where the
    encoder's positions follow them.

    Raises:
        UserError: a setting that was given contradicts the encoder's; or there is no such encoder.
    """
    if not run.init or Path(run.init).is_file():
        return run
    init = run.init
    if init.startswith(HUB) and (folder := Path(init.removeprefix(HUB)).expanduser()).is_dir():
        init = str(folder)
        run = replace(run, init=init)
    if is_run(init):
        return _with_learner_of_init(_with_text_model(_with_tokenizer_of_init(run, typed), typed), typed)
    from filmstrip.objectives.contrastive import (
        ContrastiveConfig,
    )  # runs that start from nothing do without its rooms

    if isinstance(run.objective, ContrastiveConfig):
        return _with_towers_of_init(run, typed)
    if isinstance(run.objective, AroundLearnerConfig):
        return _with_encoder_of_hub(run, run.objective, typed)
    if run.objective.has_pipeline:
        from filmstrip.runs.hub_pipelines import with_pipeline_of_init  # other methods do without its rooms

        return with_pipeline_of_init(run, typed, _clip_of)
    if run.objective.has_hub_sizes:
        from filmstrip.runs.hub_captioned import with_method_of_init

        return with_method_of_init(run, typed, _clip_of)
    if run.objective.has_language:
        from filmstrip.runs.hub_language import with_language_of_init  # other methods do without its rooms

        return _with_text_model(with_language_of_init(run, typed), typed)
    with torch.device("meta"):
        encoder = getattr(run.objective.build(), "encoder", None)
    if not isinstance(encoder, ViT) and not isinstance(encoder, FromImage):
        return run
    sizes, own = hub_sizes(init), cast(Any, run.objective)
    if "patch_size" in sizes:
        patch, tubelet = sizes["patch_size"], sizes.pop("tubelet", None)
        if isinstance(own.patch_size, tuple):
            sizes["patch_size"] = (own.patch_size[0] if tubelet is None else tubelet, patch, patch)
    clip: dict[str, Any] = {key: sizes.pop(key) for key in ("num_frames", "size") if key in sizes}
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


def _with_towers_of_init(run: Run, typed: Collection[str]) -> Run:
    """This run with the towers, the frames and the tokenizer of the SigLIP or CLIP that ``init`` names.

    Raises:
        UserError: a setting of the towers was given, or the source is no such model.
    """
    from filmstrip.data.kinds.captioned import Captioned  # other methods do without its rooms
    from filmstrip.runs.hub_towers import hub_towers

    if (found := hub_towers(str(run.init))) is None:
        raise UserError(f"{run.init} is no SigLIP or CLIP in the Hub's layout: start two towers from one, or a run")
    if given := sorted(name for name in typed if name.startswith(("objective.vision.", "objective.text."))):
        raise UserError(f"{run.init} says how large its towers are: leave out {', '.join(given)}")
    own = any(name.startswith("data.reads") for name in typed)
    reads: Kind = run.data.reads
    if not own and isinstance(reads, Captioned):  # a kind that reads more than captions goes on doing so
        told = found.reads
        reads = replace(reads, tokenizer=told.tokenizer, max_length=told.max_length, start=told.start)
    log.warning("%s says how large the towers are, and how captions are read", run.init)
    clip = _clip_of(run.data.clip, {"size": found.vision.size}, typed)
    changed: dict[str, Any] = {"vision": replace(found.vision, num_frames=clip.num_frames), "text": found.text}
    if hasattr(run.objective, "embed_dim"):
        changed["embed_dim"] = found.embed_dim
    objective = replace(run.objective, **changed)
    return replace(run, objective=objective, data=replace(run.data, clip=clip, reads=reads))


def _with_tokenizer_of_init(run: Run, typed: Collection[str]) -> Run:
    """This run with the text tokenizer of the run that ``init`` names, in place of one that would be fitted anew.

    Its words would have other ids than those that the weights were trained with.
    """
    reads, folder = run.data.reads, Path(str(run.init))
    if (tokenizer := getattr(reads, "tokenizer", None)) is None:
        return run
    from filmstrip.text.tokenizers import FILE, Words  # methods without text do without its room

    fitted = isinstance(tokenizer, Words) and "data.reads.tokenizer" not in typed
    if not fitted or not (folder / FILE).exists():
        return run
    log.warning("text is read by the tokenizer of %s, which its weights were trained with", folder)
    return replace(run, data=replace(run.data, reads=reads.as_recorded(folder)))


def _with_text_model(run: Run, typed: Collection[str]) -> Run:
    """This run with the sizes of the language model of text that ``init`` names, if it is one of those."""
    if not run.objective.has_language:
        return run
    from filmstrip.runs.text_models import with_text_model_of_init  # other methods do without its rooms

    return with_text_model_of_init(run, typed)


def _with_learner_of_init(run: Run, typed: Collection[str]) -> Run:
    """This run with the learner, and the clips, of the run that ``init`` names, if that has other sizes.

    Frames from all over a video stay as many as they are here where the learner's positions follow them: how long
    clips were in pretraining says nothing of those.

    Raises:
        UserError: a setting of the learner or of its clips was given.
    """
    if not isinstance(run.objective, AroundLearnerConfig) or run.init is None:
        return run
    own, there = run.objective.learner, read_config(Path(run.init) / CONFIG)
    learner = getattr(there.objective, "learner", there.objective)
    shapes = _shapes(learner)
    if _shapes(own) == shapes:
        return run
    _check_typed(run, typed, ("objective.learner.",))
    if isinstance(learner, LatentConfig):  # its tokenizer comes with its weights
        learner = replace(learner, tokenizer_run=None)
    log.warning("%s says what learns: %s", run.init, type(learner).__name__)
    clip = run.data.clip
    if clip.sampling == "uniform" and _shapes(here := learner.for_clip(clip)) == shapes:
        return _around(run, run.objective, here, clip, typed)
    _check_typed(run, typed, ("data.clip.",))
    log.warning("%s says from which clips", run.init)
    return _around(run, run.objective, learner, there.data.clip, typed)


def _shapes(config: ObjectiveConfig) -> dict[str, torch.Size]:
    """Shapes of the weights of a method, by their names."""
    with torch.device("meta"):
        return {name: value.shape for name, value in config.build().state_dict().items()}


def _with_encoder_of_hub(run: Run, objective: AroundLearnerConfig, typed: Collection[str]) -> Run:
    """This run around the encoder that ``init`` names on the Hub or in its layout, and clips of its size; clips that
    were given stay where the encoder's positions follow them.

    Raises:
        UserError: a setting of the learner was given, it is to go on learning by a loss of its own, or the encoder is
            of no kind that can be trained here.
    """
    if off := objective.goes_on_learning():
        raise UserError(f"{run.init} is an encoder alone, which has no loss of its own: start from a run, or {off}")
    from filmstrip.objectives.teachers import as_encoder  # other methods do without its rooms

    architecture = hub_architecture(str(run.init))
    video = not isinstance(architecture, TransformerArchitecture)
    _check_typed(run, typed, ("objective.learner.",) if video else ("objective.learner.", "data.clip.size"))
    sizes = {key: getattr(architecture, key) for key in ("num_frames", "size")[not video :]}
    sizes = {key: value for key, value in sizes.items() if f"data.clip.{key}" not in typed}
    clip = _clip_of(run.data.clip, sizes, typed)
    learner = as_encoder(architecture).for_clip(clip)
    log.warning("%s says how large the network is, and its clips: %s", run.init, type(learner).__name__)
    return _around(run, objective.with_head_of_hub(hub_config(str(run.init)), typed), learner, clip, typed)


def _around(
    run: Run, objective: AroundLearnerConfig, learner: ObjectiveConfig, clip: Clip, typed: Collection[str]
) -> Run:
    """This run around another learner, on its clips."""
    return replace(run, objective=objective.with_learner(learner, typed), data=replace(run.data, clip=clip))


def _check_typed(run: Run, typed: Collection[str], settings: tuple[str, ...]) -> None:
    if given := sorted(name for name in typed if name.startswith(settings)):
        raise UserError(
            f"{run.init} is of other sizes than the preset's learner, and brings its own and its clips: leave out "
            f"{', '.join(given)}"
        )


def _clip_of(clip: Clip, sizes: Mapping[str, Any], typed: Collection[str]) -> Clip:
    """A clip of another length and size, whose training frames are as much larger than it as they were."""
    if "size" in sizes and "data.clip.short_side" not in typed:
        low, high = (round(side * sizes["size"] / clip.size) for side in clip.short_side)
        clip = replace(clip, short_side=(low, high))
    return replace(clip, **sizes)
