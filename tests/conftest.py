import os
import signal

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes, before torch reads it: together they have all cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Programs that tests start compile the package's files once, and not each of them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What is started in the background is often told to ignore Ctrl-C, and by nohup that its terminal is gone; and so
# would be the programs that tests start.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# The gate tries the same examples every time, so that it fails for what a change did and for nothing else.
# `make test-slow` searches among new ones.
settings.register_profile("same_examples", derandomize=True, deadline=None)
settings.register_profile("new_examples", deadline=None)
settings.load_profile("same_examples")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many processes as this one may use cores: by default pytest-xdist counts a core with two threads once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What shares fixtures runs in one process: a file; but in long files each system's tests by themselves.

    Tests that start several processes run in one as well, so that no two of them do at once. pytest-xdist reads the
    groups in the same hook: before it, or there are none.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = item.location[0]
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        system = parameters.get("name", parameters.get("address"))
        if item.get_closest_marker("multiprocess"):
            group = "multiprocess"
        elif isinstance(system, str) and "." in system:
            group += f" {system}"
        item.add_marker(pytest.mark.xdist_group(group))
