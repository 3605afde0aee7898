"""Formats of other people's files, and what key maps are made of; no network is named here."""
