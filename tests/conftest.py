from hypothesis import settings

# The gate tries the same examples every time, so that it fails for what a change did and for nothing else.
# `make test-slow` searches among new ones.
settings.register_profile("same_examples", derandomize=True, deadline=None)
settings.register_profile("new_examples", deadline=None)
settings.load_profile("same_examples")
