"""Synthetic datasets, generated as real video files."""
