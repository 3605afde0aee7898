"""Systems that learn an encoder without labels."""
