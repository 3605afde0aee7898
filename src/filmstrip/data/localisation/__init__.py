"""Untrimmed videos: features along them, and the actions they hold."""
