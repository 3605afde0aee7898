"""Augmentation of batches, on the device or the CPU."""
