"""What a network costs and sees: parameters, operations, receptive field."""
