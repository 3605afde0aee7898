"""A run: its configuration, what is looked at before it starts, training and evaluating it, loading what it left."""
