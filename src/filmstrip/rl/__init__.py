"""Environments, what is recorded in them, and the replay that training reads: experience in place of files."""
