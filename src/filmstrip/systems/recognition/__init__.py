"""Systems that name what happens in a clip."""
