"""Grounding of language: which moments of a video a query in words describes, and which clips are highlights."""
