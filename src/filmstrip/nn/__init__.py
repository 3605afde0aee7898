"""Leaf blocks: torch and plain keyword arguments only."""
