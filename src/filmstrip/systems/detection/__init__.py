"""Spatio-temporal detection: who does what, within the boxes of a key frame."""
