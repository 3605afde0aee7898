"""Turning video into tokens and back."""
