"""Untrimmed videos: sequences of features, and actions."""
