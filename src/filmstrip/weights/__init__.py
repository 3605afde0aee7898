"""One key map per external checkpoint format."""
