"""From a source to batches: order, workers, collation."""
