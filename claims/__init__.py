"""What the papers found, re-run small: one file a claim, one runner, one ledger (``docs/claims.md``)."""
