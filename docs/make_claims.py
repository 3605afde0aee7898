"""Writes docs/claims.md: every claim, what the paper says beside what was recorded, and the verdict.

python docs/make_claims.py            # rewrite it
python docs/make_claims.py --check    # fail if it is not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the claims are no part of the installed package

from claims.page import page  # noqa: E402


def main() -> int:
    """Write or check the page."""
    text, path = page(), ROOT / "docs/claims.md"
    if "--check" in sys.argv[1:]:
        return int(path.read_text() != text)
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
