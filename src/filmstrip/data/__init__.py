"""Sources, loader, synthetic sets and augmentation: from files to batches."""
