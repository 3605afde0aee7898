"""Docstrings of fields and constants, and the help of commands, say what they describe, in the field's terms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import filmstrip

ROOT = Path(filmstrip.__file__).parent
ROOMS = (
    "commands",
    "data",
    "distributed",
    "evals",
    "measure",
    "report",
    "studio",
    "systems/generation",
    "systems/procedures",
    "systems/tokenizers",
    "text",
    "train",
    "weights",
)
"""Folders whose docstrings are held against the rules."""
WITHOUT_SUBJECT = re.compile(r"(Of|Whose|Which|Least|Most|Fewest|How|So|As|That|Those|Where|What|From|Than)\b(?!-)")
"""Beginnings of a field's docstring that leave out its subject."""
PRIVATE = re.compile(
    r"\b(surest|sureness|hidden cubes?|nobody (says|said|knows)|looked at|is no (number|table|folder|classifier|run)|"
    r"in order of time|go(es)? on where|(are|is) called as|left alone|by turns|whoever|somebody|makes? no sense)\b",
    re.IGNORECASE,
)
"""Phrases that the glossary replaces."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def string(node: ast.AST) -> str | None:
    """The text of an expression that is nothing but a string."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The docstrings behind assignments in a module and its classes, with their lines."""
    for scope in (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)):
        for before, after in zip(scope.body, scope.body[1:]):
            if isinstance(before, ast.Assign | ast.AnnAssign) and (text := string(after)):
                yield after.lineno, text


def faults(path: Path, tree: ast.AST) -> Iterator[str]:
    for line, text in attributes(tree):
        if WITHOUT_SUBJECT.match(text):
            yield f"{path}:{line}: begins without its subject: {text.splitlines()[0]}"
    for node in ast.walk(tree):
        if (text := string(node)) and (found := PRIVATE.search(text)):
            yield f"{path}:{node.lineno}: {found[0]!r} is no term of docs/glossary.md: {text.splitlines()[0]}"


def test_docstrings_of_fields_have_a_subject_and_all_use_the_fields_terms():
    assert [fault for path, tree in modules() for fault in faults(path, tree)] == []


@pytest.mark.parametrize(
    "text",
    ["Of a clip.", "Whose annotations they are.", "Least share of a box.", "How many steps.", "The surest class."],
)
def test_a_docstring_without_subject_or_with_a_private_word_is_found(text):
    tree = ast.parse(f'class A:\n    x: int = 1\n    """{text}"""\n')
    assert len(list(faults(Path("a.py"), tree))) == 1


@pytest.mark.parametrize("text", ["Number of frames of a clip.", "Offset in the file.", "Most-recent state."])
def test_a_noun_phrase_is_no_fault(text):
    assert list(faults(Path("a.py"), ast.parse(f'X = 1\n"""{text}"""\n'))) == []
