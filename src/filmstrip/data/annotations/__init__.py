"""Readers of public annotations."""
