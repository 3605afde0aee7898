import signal

from hypothesis import settings

# What is started in the background is often told to ignore Ctrl-C, and so would be the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The gate tries the same examples every time, so that it fails for what a change did and for nothing else.
# `make test-slow` searches among new ones.
settings.register_profile("same_examples", derandomize=True, deadline=None)
settings.register_profile("new_examples", deadline=None)
settings.load_profile("same_examples")
