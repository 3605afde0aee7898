"""Architectures that several systems share."""
