"""Losses with their state, shared by several systems."""
