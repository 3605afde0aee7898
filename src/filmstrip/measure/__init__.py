"""Cost and receptive field of a network: parameters, operations, memory, receptive field per layer."""
