"""The commands of the README and of ``docs/`` work: in each page's order, in one folder, made small.

The default tests run the README's first steps and read the options of everything that is not run; the slow ones run
every page whole. ``tests/page_commands.py`` says how pages mark what no test can run.
"""

import re
from pathlib import Path

import pytest

import page_commands
from page_commands import Line

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if page_commands.lines(path))
FIRST = "## Use what you trained"
"""Heading of the README before which the default test stops."""
README = ROOT / "README.md"


def name(page: Path) -> str:
    return page.name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to run a page in, with synthetic sets of its own."""
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def run_page(found: list[Line]) -> None:
    names: dict[str, object] = {}
    for line in found:
        if line.needs is None:
            page_commands.run(line, names)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=name)
def test_commands_stand_where_tests_see_them(page):
    assert list(page_commands.stray(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_of_what_is_not_run_exist(page):
    for line in page_commands.lines(page):
        if line.needs not in (None, *page_commands.UNKNOWN) and line.language == "sh":
            page_commands.parse(line)


def test_the_readme_leads_to_a_first_result(folder):
    stop = README.read_text(encoding="utf-8")[: README.read_text(encoding="utf-8").index(FIRST)].count("\n")
    first = [line for line in page_commands.lines(README) if line.number < stop]
    assert [line.words[1] for line in first if line.needs is None and line.text.startswith("filmstrip ")] == [
        "data",
        "data",
        "train",
        "predict",
    ]
    run_page(first)
    assert (folder / "runs/mine/report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_runs_from_top_to_bottom(page, folder):
    run_page(page_commands.lines(page))


def test_a_command_is_read_with_its_needs_and_continued_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n```sh\nfilmstrip list   # all\n# nothing\nfilmstrip show \\\n    a.b 'c d'\n```\n\n"
        "<!-- not run here: hub -->\n```sh\nfilmstrip predict hf:a/b clip.mp4\n```\n\n```python\nx = 1\n```\n"
    )
    first, second, third, code = page_commands.lines(page)
    assert (first.number, first.words, first.needs) == (4, ["filmstrip", "list"], None)
    assert (second.number, second.words) == (6, ["filmstrip", "show", "a.b", "c d"])
    assert (third.needs, code.language, code.text) == ("hub", "python", "x = 1\n")


def test_a_command_that_fails_is_named_with_its_line(folder):
    with pytest.raises(
        AssertionError, match=re.compile("line 7: filmstrip eval no_run.*is not a run folder", re.DOTALL)
    ):
        page_commands.run(Line(7, "filmstrip eval no_run", "sh", None), {})


@pytest.mark.parametrize("options", ["--optim.lrr 3e-4", "--train.epochs x"])
def test_an_option_that_does_not_exist_is_found_without_running(options):
    with pytest.raises(AssertionError, match="line 3"):
        page_commands.parse(Line(3, f"torchrun -m filmstrip train recognition.vit {options}", "sh", "cluster"))


def test_commands_are_made_small():
    train = ["train", "recognition.vit", "--train.epochs", "9", "--out", "x"]
    made = page_commands.small(train)
    assert made[-4:] == ["--train.steps", "2", "--data.num-workers", "0"] and "--train.epochs" not in made
    assert "--data.synthetic.train-per-class" in made
    assert "--data.synthetic.train-per-class" not in page_commands.small([*train, "--data", "videos"])
    made = page_commands.small(["data", "make", "cups", "--out", "cups"])
    assert made[-4:] == ["--num-test", "3", "--num-train", "6"]


def test_a_command_in_a_block_of_text_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```\nfilmstrip list\n```\n\n<!-- not run here: luck -->\n```sh\nfilmstrip list\n```\n")
    assert list(page_commands.stray(page)) == ["filmstrip list\n", "not run here: luck"]
