"""Starting a program as several gloo processes on this machine."""

import os
import socket

from started import Started


def run_processes(arguments, world):
    """Run ``python ARGUMENTS`` in ``world`` connected processes, or by itself, and wait until all have succeeded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        env = os.environ | {key: str(value) for key, value in (names | address).items()} if world > 1 else None
        processes.append(Started(*arguments, env=env))
    codes = [process.wait(timeout=200) for process in processes]
    assert codes == [0] * world, "\n".join("".join(process.printed()) for process in processes)
