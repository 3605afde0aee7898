"""Sets that are made here, as real files."""
