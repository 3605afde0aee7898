"""Editing: a video changed by words, the rest of it kept."""
