"""Temporal action localisation: which actions an untrimmed video holds, and when."""
