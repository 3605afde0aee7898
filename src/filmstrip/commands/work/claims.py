"""Running and listing the claims, which are beside the package in a checkout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import filmstrip
from filmstrip.errors import UserError


def run_claims(names: tuple[str, ...], seeds: int | None, *, again: bool = False, confirm: bool = False) -> None:
    """Measure the seeds that are not recorded yet of the named claims, or of all claims, and print the results.

    Raises:
        UserError: there is no such claim, a file that it needs is absent, or confirmed figures are others now.
    """
    if confirm and (again or seeds is not None or not names):
        raise UserError("--confirm takes names of claims, and neither --again nor --seeds")
    ledger, page = _modules()
    chosen = [(name, ledger.find(name)) for name in names or ledger.names()]  # wrong names fail before any claim runs
    for name, claim in chosen:
        if not names and (absent := [path for path in claim.needs if not path.exists()]):
            print(f"{name}: skipped, because it needs {absent[0]}")
            continue
        record = ledger.confirm(name) if confirm else ledger.run(name, seeds, again=again)
        print(f"\n## {name}\n\n{page.section(name, claim, record)}", flush=True)
    print("`make docs` writes docs/claims.md from the recorded results")


def list_claims() -> None:
    """Print every claim with its verdict and duration."""
    ledger, page = _modules()
    for name in ledger.names():
        claim = ledger.find(name)
        record = page.recorded(name, claim)
        verdict = record.verdict(claim) if record else page.NOT_RUN
        print(f"{name:<24} {verdict:<26} {claim.minutes:>3g} min  {claim.finding}")


def _modules() -> tuple[ModuleType, ModuleType]:
    """The modules ``claims.ledger`` and ``claims.page`` of the checkout that this package is run from."""
    root = Path(filmstrip.__file__).parents[2]
    if not (root / "claims" / "ledger.py").exists():
        raise UserError(
            f"the claims are not installed with the package ({root} has no folder claims): run `filmstrip claims` "
            "from a checkout of the repository, installed with `pip install --editable .`"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("claims.ledger"), importlib.import_module("claims.page")
