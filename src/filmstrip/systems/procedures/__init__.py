"""Procedures: which steps a person takes next, or takes from a start to a goal."""
