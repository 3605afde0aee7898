"""``filmstrip data``: commands for collections of videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import tyro

from filmstrip.bounds import Count, Quality, Rate, Seed, Weight
from filmstrip.commands.arguments import leading, option
from filmstrip.commands.command import Command, read
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.data.config import Synthetic

Collection = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Decode every file of a collection; list unreadable, damaged and unsupported files; print statistics."""

    usage = "PATH [options]"
    path: Collection
    """Folder, manifest or shards."""
    workers: Count = 2
    """Number of worker processes."""
    fps: Rate | None = None
    """Frames per second of films that are folders of images; given, every folder of images is a film, otherwise
    folders of numbered images within those of classes are, of 25 frames per second."""
    json: bool = False
    """Whether to print one JSON object instead of text."""

    def __call__(self) -> int:
        from filmstrip.data.tools.check import check_collection

        report = check_collection(self.path, workers=self.workers, fps=self.fps)
        print(report.to_json() if self.json else report.text())
        return 1 if report.bad or report.beyond else 0


@dataclass(frozen=True, kw_only=True)
class Prepare(Command):
    """Re-encode a collection so that training loads it several times faster; resumes where it stopped."""

    usage = "PATH --out FOLDER [options]"
    path: Collection
    """Folder, manifest or shards."""
    out: Path
    """Output folder of the new files and their manifest."""
    short_side: Count = 256
    """Length of the shorter side, in pixels; smaller videos keep their size."""
    gop: Count = 8
    """Number of frames between two key frames."""
    crf: Quality = 20
    """H.264 constant rate factor; lower is better quality and larger files."""
    sound: bool = True
    """Whether copies keep the sound."""
    workers: Count = 2
    """Number of worker processes."""
    fps: Rate | None = None
    """Frames per second of films that are folders of images; given, every folder of images is a film, otherwise
    folders of numbered images within those of classes are, of 25 frames per second."""

    def __call__(self) -> int:
        from filmstrip.data.tools.prepare import copies_in, prepare_collection

        def kept() -> str:
            count = copies_in(self.out)
            return f"{self.out} keeps {count} copies: the same command makes the others" if count else NOTHING_KEPT

        with keeping(kept):
            report = prepare_collection(
                self.path,
                self.out,
                short_side=self.short_side,
                gop=self.gop,
                crf=self.crf,
                sound=self.sound,
                workers=self.workers,
                fps=self.fps,
            )
        print(report.text())
        return 1 if report.bad else 0


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Convert labels that were exported by CVAT, VIA or Label Studio into a manifest, a public table of edits into
    ours, or a public dataset of arrays into videos with actions; the latter resumes where it stopped."""

    usage = "PATH --layout LAYOUT --out FILE|FOLDER [options]"
    path: Collection
    """Exported file, or folder of the dataset."""
    layout: str
    """Tool that exported labels: cvat (XML or Datumaro, also in its .zip), via (project of VIA 3) or label_studio
    (JSON); or layout of the dataset: bair (TFRecord files), teco or viper_rl (npz files, of
    DMLab and of experts), or loveu_tgve (edits of the challenge of 2023)."""
    out: Path
    """Manifest to write, a .csv with a row for each labelled part of a film; or output folder of the videos, as
    split/*.mp4 with *.actions.npy, or of edits.csv."""
    videos: Path | None = None
    """Folder of the films that are labelled or edited, or the one film; by default the folder of the exported file,
    or the places of the layout."""
    fps: Rate | None = None
    """Frames per second at which the labelling tool counted frames, if that is not the film's own rate."""
    attribute: str = ""
    """Name of the attribute of VIA, or of the control of Label Studio's labelling page, that labels films, if there
    are several."""
    boxes: Path | None = None
    """Table to write with the boxes at key frames, in AVA's format, as `filmstrip detect --boxes` reads it: of CVAT
    and Label Studio."""
    lossless: bool = False
    """Whether to encode losslessly; the files are several times larger."""
    workers: Count = 2
    """Number of worker processes."""

    def __call__(self) -> int:
        from filmstrip.data.tools.labels import EXPORTS, convert_labels

        if self.layout in EXPORTS:
            found = convert_labels(
                self.layout,
                self.path,
                self.videos or self.path.parent,
                self.out,
                fps=self.fps,
                attribute=self.attribute,
                boxes=self.boxes,
            )
            print(found.text())
            return 1 if found.missing else 0
        from filmstrip.data.tools.edits import EDITS, convert_edits

        if self.layout in EDITS:
            if self.fps or self.attribute or self.boxes:
                raise UserError(f"--fps, --attribute and --boxes are for labels ({', '.join(EXPORTS)})")
            edits = convert_edits(self.layout, self.path, self.out, videos=self.videos)
            print(edits.text())
            return 1 if edits.missing else 0
        if self.videos or self.fps or self.attribute or self.boxes:
            raise UserError(
                f"--videos, --fps, --attribute and --boxes are for labels ({', '.join(EXPORTS)}), and --layout is "
                f"{self.layout}"
            )
        from filmstrip.data.tools.convert import convert_layout

        with keeping(lambda: f"{self.out} keeps the videos that are complete: the same command makes the others"):
            report = convert_layout(self.layout, self.path, self.out, lossless=self.lossless, workers=self.workers)
        print(report.text())
        return 1 if report.bad else 0


@dataclass(frozen=True, kw_only=True)
class Make(Command):
    """Generate a synthetic dataset as video files."""

    usage = "NAME [--out FOLDER] [options of the dataset]"
    wanted: Synthetic
    out: Path | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        name, arguments = leading(cls, arguments, prog, "NAME")
        from filmstrip.data.synthetic import sets

        out, arguments = option(arguments, "--out")
        wanted = read(sets.named(name), arguments, f"{prog} {name}", cls.usage.partition(" ")[2])
        return cls(wanted=wanted, out=Path(out) if out else None)

    def __call__(self) -> None:
        with keeping(lambda: NOTHING_KEPT):
            print(self.wanted.generate(self.out))


@dataclass(frozen=True, kw_only=True)
class Steps(Command):
    """Write a manifest of all steps of annotated videos, which `filmstrip encode ENCODER FILE` can then encode."""

    usage = "ANNOTATIONS VIDEOS --dataset NAME --out FILE [options]"
    annotations: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ANNOTATIONS")]
    """Folder or file of the annotations."""
    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Folder that contains the videos, named as in the annotations, at any depth."""
    dataset: Literal["own", "coin", "crosstask", "niv", "ego4d"]
    """Dataset or format of the annotations; own is a procedures.json."""
    out: Path
    """Path of the manifest to write, a .csv."""
    division: Literal["pdpp", "schema", "release"] = "pdpp"
    """Published split of the dataset into training and test."""

    def __call__(self) -> None:
        from filmstrip.data.annotations.steps_manifest import write_manifest
        from filmstrip.data.kinds.procedures import Procedures, read_annotations

        wanted = Procedures(dataset=self.dataset, annotations=self.annotations, division=self.division)
        print(f"{self.out}: {write_manifest(read_annotations(wanted), self.videos, self.out)} steps")


@dataclass(frozen=True, kw_only=True)
class Questions(Command):
    """Let a language model write questions about long texts, and their answers: conversations of a long context.

    Documents are cut into chunks; for each the model writes one question and its answer; neighbouring chunks are put
    together again to the length of the context, and all of their questions follow at the end (LWM). An interrupted
    command resumes, and with another --context makes other conversations of the same questions.
    """

    usage = "DOCS --writer RUN|FOLDER --context N --out FOLDER [options]"
    documents: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DOCS")]
    """Documents: a text (.txt, .md), records with a "text" (.jsonl, .parquet), or a folder of those."""
    writer: str
    """Model that writes questions: a run of language.lwm_text, or the folder of a causal language model of
    transformers; or "rules", by which no model but a rule asks for the numbers that `filmstrip data make haystack`
    hides."""
    context: Count
    """Maximum number of tokens of a conversation, texts and questions."""
    out: Path
    """Output folder, with a file of conversations for each split of the documents."""
    chunk: Count = 1000
    """Number of tokens of a chunk."""
    column: str = "text"
    """Name of the texts in records."""
    tokenizer: str | None = None
    """Tokenizer that counts tokens: words, bytes, or the folder of a run or of a published model; by default the
    writer's own."""
    format: str = "lwm"
    """Format of the conversations, for their lengths: that in which they will be learnt."""
    max_tokens: Count = 96
    """Maximum number of tokens of a question, and of an answer; longer ones are left out."""
    temperature: Weight = 0.0
    """Temperature of the words that are drawn; zero takes the most probable ones."""
    batch_size: Count = 8
    """Number of chunks that are asked about at once."""
    seed: Seed = 0
    """Seed of what is drawn, and of the order of questions."""

    def __call__(self) -> int:
        from filmstrip.commands.work.questions import write_questions

        return write_questions(self)


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """Check, prepare, convert or generate a collection of videos, list the steps of annotated videos, or let a
    language model ask about texts.

    filmstrip data check PATH
    filmstrip data prepare PATH --out FOLDER
    filmstrip data convert PATH --layout LAYOUT --out FILE|FOLDER
    filmstrip data make NAME [--out FOLDER]
    filmstrip data steps ANNOTATIONS VIDEOS --dataset NAME --out FILE
    filmstrip data questions DOCS --writer RUN|FOLDER --context N --out FOLDER
    """

    actions: ClassVar[dict[str, type[Command]]] = {
        "check": Check,
        "prepare": Prepare,
        "convert": Convert,
        "make": Make,
        "steps": Steps,
        "questions": Questions,
    }
    usage = "check|prepare|convert|make|steps|questions ..."
    action: Command

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        *most, last = cls.actions
        known = f"{', '.join(most)} or {last}"
        name, arguments = leading(cls, arguments, prog, known)
        if name not in cls.actions:
            raise UserError(f"{prog} {name} does not exist: use {known}")
        return cls(action=cls.actions[name].parse(arguments, f"{prog} {name}"))

    def __call__(self) -> int | None:
        return self.action()
