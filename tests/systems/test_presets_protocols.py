"""Every preset's objective is what its group means, and reads a kind of sample whose batches hold what it requires.

A protocol's verbs are its own, so that no objective is taken for what it is not.
"""

import inspect

import pytest
from drawn import objective_of

from filmstrip import protocols, systems
from filmstrip.protocols import (
    Agent,
    Answers,
    Captioner,
    Classifier,
    CodeModel,
    Completes,
    ContactForecaster,
    Detector,
    DualEncoder,
    FlowClassifier,
    Forecaster,
    FrameScorer,
    FromTransformers,
    Generator,
    GoalPlanner,
    Grounder,
    Grows,
    InDiffusers,
    InPeft,
    InPipeline,
    InTransformers,
    LayeredLearner,
    LikelihoodModel,
    Localiser,
    MaskedPredictor,
    Matcher,
    Policy,
    PromptedAgent,
    Published,
    Reconstructs,
    Refers,
    Released,
    Seer,
    SeveralInTransformers,
    SharesContext,
    SharesRows,
    StreamingGenerator,
    TextFromTransformers,
    TextWriter,
    Tokenizer,
    VideoEditor,
    find_encoder,
    find_tokenizer,
)

PROTOCOLS = [
    cls
    for _, cls in inspect.getmembers(protocols, inspect.isclass)
    if cls.__module__ == protocols.__name__ and getattr(cls, "_is_protocol", False)
]
FILES = {
    FromTransformers,
    Grows,
    InDiffusers,
    InPeft,
    InPipeline,
    InTransformers,
    Published,
    Released,
    SeveralInTransformers,
    TextFromTransformers,
}
"""Protocols of weights from elsewhere, which methods of any group may offer."""
MEANT = {
    "control": {Agent, GoalPlanner, Policy, PromptedAgent},
    "detection": {ContactForecaster, Detector},
    "editing": {VideoEditor},
    "generation": {Completes, Generator, StreamingGenerator, LikelihoodModel, CodeModel, FrameScorer},
    "grounding": {Grounder},
    "language": {Answers, Captioner, DualEncoder, Matcher, Refers, Seer, SharesContext, SharesRows, TextWriter},
    "localisation": {Localiser},
    "pretraining": {
        MaskedPredictor,
        Reconstructs,
        Generator,
        StreamingGenerator,
        LikelihoodModel,
        CodeModel,
        FrameScorer,
        LayeredLearner,
    },
    "procedures": {Forecaster},
    "recognition": {Classifier, FlowClassifier},
    "rewards": {Generator, StreamingGenerator, LikelihoodModel, CodeModel, FrameScorer, Tokenizer},
    "tokenizers": {Tokenizer},
}
"""What methods of a group can be asked, and nothing else."""
ALSO = {"language.lwm": {Generator, StreamingGenerator}}
"""What single methods can be asked beside that."""


def verbs(protocol):
    """What it asks for beyond the protocols that it extends."""
    inherited = {name for base in protocol.__mro__[1:] for name in vars(base)}
    names = {name for name, member in vars(protocol).items() if callable(member) and name[0] != "_"}
    return names - inherited


def test_no_two_protocols_share_a_verb():
    assert {Classifier, Generator, Forecaster} <= set(PROTOCOLS)
    found = [verb for protocol in PROTOCOLS for verb in verbs(protocol)]
    assert sorted(found) == sorted(set(found))
    without = {protocol.__name__ for protocol in PROTOCOLS if not verbs(protocol)}
    assert without == {"Encoder"}, "an encoder is called; it is asked for by its name too"


def test_objectives_are_what_their_group_means_and_read_what_they_require(name):
    found = {systems.find(f"{name}:{preset}").objective.__class__: preset for preset in systems.presets(name)}
    check_presets(name, found.values())


@pytest.mark.slow
def test_objectives_of_all_presets_are(name):
    check_presets(name, systems.presets(name))


def check_presets(name, presets):
    group = name.partition(".")[0]
    for preset in presets:
        objective, run = objective_of(f"{name}:{preset}")
        assert set(objective.requires) <= run.data.reads.specification.keys.keys(), f"{name}:{preset}"
        found = {protocol for protocol in PROTOCOLS if isinstance(objective, protocol)} - FILES
        assert found <= MEANT[group] | ALSO.get(name, set()), f"{name}:{preset}"
        assert found or "pretrain" in f"{name}:{preset}"


def test_parts_are_found_by_what_they_are(name):
    objective, _ = objective_of(f"{name}:tiny")
    group = name.partition(".")[0]
    encoder, tokenizer = find_encoder(objective), find_tokenizer(objective)
    if group in ("recognition", "detection") and name != "recognition.two_stream":
        assert encoder is objective.encoder
    elif group not in ("pretraining", "control", "language"):
        assert encoder is None
    if group == "tokenizers":
        assert tokenizer is objective
    else:
        # Those that generate or edit have one, but for TECO on pixels, whose is none.
        assert tokenizer is (objective.tokenizer if isinstance(objective, Generator | VideoEditor) else None)
