"""The ledger of claims: verdicts, intervals, what is recorded and resumed, and what every claim declares."""

import json
import math
import sys

import pytest
from claims import codes, edited_scenes, ledger, page, squares, taught, videomae_pretraining
from claims.ledger import Claim, Figure, Interval, above, below, combined, equal, judge
from scipy import stats

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import claims as command
from filmstrip.errors import UserError
from filmstrip.measure import interval

FAKE = '''
"""Ours is larger than theirs."""

from claims.ledger import Claim, Figure, above

CALLS = []
CLAIM = Claim(
    systems=(),
    finding=__doc__.strip(),
    paper="Somebody: 2 against 1.",
    here="Two sums.",
    baseline="Theirs.",
    figures={"ours": Figure(says="ours", paper="2"), "theirs": Figure(says="theirs", paper="1")},
    expected=(above("ours", "theirs", "ours is larger"),),
    minutes=0.1,
)


def measure(seed, folder):
    assert folder.is_dir() and not list(folder.iterdir())
    CALLS.append(seed)
    return {"ours": 2 + 0.1 * seed, "theirs": 1}
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A claim in a folder of its own."""
    (tmp_path / "larger.py").write_text(FAKE)
    monkeypatch.setattr(ledger, "FOLDER", tmp_path)
    monkeypatch.setattr(ledger, "RESULTS", tmp_path)
    monkeypatch.setattr("claims.__path__", [str(tmp_path)])
    yield tmp_path
    sys.modules.pop("claims.larger", None)
    sys.modules.pop("claims.smaller", None)


def test_the_interval_is_students():
    values = [3.0, 4.5, 4.0, 6.5]
    found = Interval.of(values)
    low, high = stats.t.interval(0.95, 3, loc=4.5, scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((4.5, low, high), abs=1e-3)


def test_the_quantiles_are_students():
    for degrees, quantile in enumerate(interval.T_975, start=1):
        assert quantile == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)
    assert len(interval.T_975) == 15


def test_one_seed_has_no_interval_and_no_verdict():
    assert Interval.of([2.0]) == Interval(2.0, -math.inf, math.inf)
    assert judge(above("a", 0, "a"), [100.0]) == "too noisy to say"
    assert judge(equal("a", 0, "a", within=1), [0.0]) == "too noisy to say"


@pytest.mark.parametrize(
    ("differences", "by", "verdict"),
    [
        ([5.0, 5.1, 4.9], 0.0, "reproduced"),
        ([-5.0, -5.1, -4.9], 0.0, "not"),
        ([0.0, 0.0, 0.0], 0.0, "not"),
        ([5.0, -4.0, 1.0], 0.0, "too noisy to say"),
        ([5.0, 5.1, 4.9], 4.0, "reproduced"),
        ([5.0, 5.1, 4.9], 5.0, "partly"),  # the direction is shown, the size may be there
        ([5.0, 5.1, 4.9], 10.0, "partly"),  # the direction is shown, the size is excluded
        ([-0.2, 0.1, 0.2], 10.0, "not"),  # the size is excluded, the direction not shown
        ([-5.0, 20.0, 9.0], 10.0, "too noisy to say"),
        ([-1.0, -1.1, -0.9], -2.0, "reproduced"),  # not worse by more than 2
        ([-5.0, -5.1, -4.9], -2.0, "not"),
        ([-5.0, 1.0, -2.0], -2.0, "too noisy to say"),
    ],
)
def test_verdicts_on_a_direction(differences, by, verdict):
    assert judge(above("a", "b", "a is larger", by=by), differences) == verdict
    turned = below("a", "b", "a is smaller", by=by)
    assert [turned.difference({"a": 0.0, "b": d}) for d in differences] == differences
    assert judge(turned, differences) == verdict


def test_a_relative_difference_is_in_percent_of_the_baseline():
    assert below("a", "b", "a is smaller", relative=True).difference({"a": 30.0, "b": 40.0}) == 25.0
    assert below("a", "b", "a is smaller", relative=True).difference({"a": 300.0, "b": 400.0}) == 25.0


@pytest.mark.parametrize(
    ("differences", "within", "verdict"),
    [
        ([0.0, 0.0, 0.0], 0.0, "reproduced"),
        ([1.0, -1.0, 0.5], 10.0, "reproduced"),
        ([11.0, 11.1, 10.9], 10.0, "not"),
        ([-11.0, -11.1, -10.9], 10.0, "not"),
        ([11.0, 8.0, 9.0], 10.0, "too noisy to say"),
    ],
)
def test_verdicts_on_equality(differences, within, verdict):
    assert judge(equal("a", 0, "a is zero", within=within), differences) == verdict


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "not"], "partly"),
        (["partly", "too noisy to say"], "partly"),
        (["not", "not"], "not"),
        (["not", "too noisy to say"], "too noisy to say"),
    ],
)
def test_the_verdict_on_a_claim(parts, whole):
    assert combined(parts) == whole


def test_a_claim_is_run_recorded_and_resumed(fake):
    record = ledger.run("larger", 2)
    module = sys.modules["claims.larger"]
    assert module.CALLS == [0, 1]
    content = json.loads((fake / "larger.json").read_text())
    assert content["seeds"]["1"]["figures"] == {"ours": 2.1, "theirs": 1.0}
    assert {"seconds", "threads", "version", "git"} < set(content["seeds"]["1"])
    assert content["mean"]["ours"] == pytest.approx(2.05)
    assert content["interval"]["theirs"] == [1.0, 1.0]
    assert content["verdict"] == record.verdict(module.CLAIM)
    record = ledger.run("larger")  # three by default: one is left
    assert module.CALLS == [0, 1, 2]
    assert record.verdict(module.CLAIM) == "reproduced"
    assert record.differences(module.CLAIM.expected[0]) == pytest.approx([1.0, 1.1, 1.2])
    text = page.section("larger", module.CLAIM, ledger.Record.read("larger"))
    assert "**Reproduced.**" in text and "| ours | 2 | 2.1 | 1.9 to 2.3 | 2.0, 2.1, 2.2 |" in text
    ledger.run("larger", 1, again=True)
    assert module.CALLS == [0, 1, 2, 0]
    assert list(ledger.Record.read("larger").seeds) == [0]


def test_seeds_of_other_code_are_dropped_and_words_may_change(fake):
    ledger.run("larger", 2)
    before = ledger.recipe("larger")
    (fake / "larger.py").write_text(
        FAKE.replace("Two sums.", "Two other words.").replace('"""Ours is', '"""Ours was')
    )
    assert ledger.recipe("larger") == before
    (fake / "larger.py").write_text(FAKE.replace("0.1 * seed", "0.2 * seed"))
    assert ledger.recipe("larger") != before
    assert "to be run again" in page.measured("larger", ledger.Record.read("larger"))
    assert list(ledger.run("larger", 1).seeds) == [0]


def test_rewritten_code_that_measures_the_same_is_confirmed_and_no_other(fake):
    ledger.run("larger", 2)
    path, record = fake / "larger.py", fake / "larger.json"
    before = json.loads(record.read_text())
    path.write_text(FAKE.replace("2 + 0.1 * seed", "sum([2, 0.1 * seed])"))
    assert "to be run again" in page.measured("larger", ledger.Record.read("larger"))
    sys.modules.pop("claims.larger")
    confirmed = ledger.confirm("larger")
    after = json.loads(record.read_text())
    assert after["seeds"] == before["seeds"] and after["recipe"] == confirmed.recipe == ledger.recipe("larger")
    path.write_text(FAKE.replace("2 + 0.1 * seed", "3"))
    sys.modules.pop("claims.larger")
    with pytest.raises(UserError, match="ours 3, recorded 2: run it again"):
        ledger.confirm("larger")
    assert json.loads(record.read_text()) == after
    record.unlink()
    with pytest.raises(UserError, match="nothing is recorded"):
        ledger.confirm("larger")


def test_what_is_not_declared_or_not_finite_is_refused(fake):
    claim = ledger.find("larger")
    with pytest.raises(ValueError, match="measured were ours"):
        ledger.check(claim, {"ours": 1.0})
    with pytest.raises(ValueError, match="not finite: theirs"):
        ledger.check(claim, {"ours": 1.0, "theirs": math.nan})
    with pytest.raises(ValueError, match="not declared: other"):
        Claim(**{**vars(claim), "expected": (above("other", 0, "other"),)})
    with pytest.raises(ValueError, match="no verdict"):
        Claim(**{**vars(claim), "expected": ()})


def test_a_damaged_record_is_named(fake):
    (fake / "larger.json").write_text('{"seeds"')
    with pytest.raises(UserError, match=r"larger\.json is not a record"):
        ledger.run("larger")


def test_files_that_are_absent_are_named(fake, monkeypatch):
    claim = ledger.find("larger")
    monkeypatch.setattr(sys.modules["claims.larger"], "CLAIM", Claim(**{**vars(claim), "needs": (fake / "no",)}))
    with pytest.raises(UserError, match="which is not there"):
        ledger.run("larger")


def test_without_names_claims_whose_files_are_absent_are_left_out(fake, monkeypatch, capsys):
    (fake / "smaller.py").write_text(FAKE)
    missing = Claim(**{**vars(ledger.find("smaller")), "needs": (fake / "no",)})
    monkeypatch.setattr(sys.modules["claims.smaller"], "CLAIM", missing)
    command.run_claims((), 2, again=False)
    out = capsys.readouterr().out
    assert "smaller: skipped" in out and "## larger" in out
    assert (fake / "larger.json").exists() and not (fake / "smaller.json").exists()


def test_unknown_names_are_refused(capsys):
    assert main(["claims", "swin_shfit"]) == 2
    assert "did you mean 'swin_shift'" in capsys.readouterr().err


def test_claims_are_listed(capsys):
    assert main(["claims", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ledger.names())


def test_an_installed_package_says_where_the_claims_are(monkeypatch, tmp_path):
    monkeypatch.setattr(command.filmstrip, "__file__", str(tmp_path / "lib" / "filmstrip" / "__init__.py"))
    with pytest.raises(UserError, match="from a checkout"):
        command.list_claims()


def test_every_file_is_a_claim_or_shared_by_two():
    shared = {path.stem for path in ledger.FOLDER.glob("*.py")} - set(ledger.names())
    assert shared == {
        "__init__",
        "__main__",
        "ledger",
        "page",
        "training",
        "imitation",
        "narrated",
        "real_weights",
        "textures",
        "codes",
        "digits",
        "expert_films",
        "facts",
        "moving",
        "next_codes",
        "mobilenet",
        "squares",
        "streams",
        "taught",
        "asked",
        "visual_targets",
        "long_videos",
        "edited_scenes",
    }


LONG = {
    "dreamer_learns": 36,
    "dreamix_motion": 40,
    "editors_compared": 45,
    "masactrl_structure": 32,
    "moca_magnitude": 30,
    "moca_motion": 32,
    "moca_nulls": 30,
    "sdedit_strength": 32,
    "toto_architecture": 25,
    "viper_agent": 45,
    "viper_scoreboard": 24,
}
"""Claims of more than twenty minutes on one core, which are ten on two."""


@pytest.mark.parametrize("name", ledger.names())
def test_every_claim_declares_everything(name):
    claim = ledger.find(name)
    for words in (claim.finding, claim.paper, claim.here, claim.baseline):
        assert len(words) > 5 and words[-1] == "."
    assert "\n" not in claim.finding
    assert all(isinstance(figure, Figure) and figure.says for figure in claim.figures.values())
    assert all(expectation.says for expectation in claim.expected)
    assert claim.seeds >= 2 and 0 < claim.minutes <= LONG.get(name, 20)
    assert set(claim.systems) <= set(systems.names())


@pytest.mark.parametrize("name", [path.stem for path in sorted(ledger.RESULTS.glob("*.json"))])
def test_every_record_is_of_a_claim_and_explained_where_it_is_not_reproduced(name):
    claim, record = ledger.find(name), ledger.Record.read(name)
    assert list(record.seeds) == sorted(record.seeds)
    for figures in record.figures():
        ledger.check(claim, figures)
    whole = len(record.seeds) >= claim.seeds
    assert claim.analysis or not whole or record.verdict(claim) == "reproduced"


SMALLER = {
    "BATCH": 4,
    "DRAWS": 8,
    "EDITOR_STEPS": 3,
    "FILTER_STEPS": 10,
    "FINETUNE_STEPS": 10,
    "IMAGE_STEPS": 10,
    "LANGUAGE_STEPS": 10,
    "LONG_STEPS": 2,
    "MIX_STEPS": 2,
    "PICTURES": 16,
    "PRETRAIN_STEPS": 10,
    "REGRESSOR_STEPS": 3,
    "REPEATS": 1,
    "SAMPLES": 8,
    "SOURCES": 1,
    "STEPS": 10,
    "TEACHER_STEPS": 10,
    "TESTS": 8,
    "TOKENIZER_STEPS": 3,
    "TUNING_STEPS": 1,
    "VIDEO_STEPS": 10,
    "VIDEOS": 8,
}
"""Settings of a claim that takes seconds, and finds nothing out."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ledger.names())
def test_every_claim_measures_what_it_declares(name, monkeypatch, tmp_path):
    claim = ledger.find(name)
    if absent := [path for path in claim.needs if not path.exists()]:
        pytest.skip(f"needs {absent[0]}")
    for module in (sys.modules[f"claims.{name}"], codes, edited_scenes, squares, taught, videomae_pretraining):
        for constant, value in SMALLER.items():
            own = getattr(module, constant, None)
            own = dict.fromkeys(own, value) if isinstance(own, dict) else value
            monkeypatch.setattr(module, constant, own, raising=False)
    ledger.check(claim, sys.modules[f"claims.{name}"].measure(0, tmp_path))
