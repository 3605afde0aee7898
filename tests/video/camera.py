"""A camera on this machine: MPEG-TS over TCP."""

import socket
import threading
import time

import numpy as np
from numbered_videos import encode


class Camera:
    """A camera on this machine: MPEG-TS over TCP, at its own rate or as fast as it is read."""

    def __init__(self, frames: np.ndarray, *, fps: int = 25, paced: bool = True) -> None:
        self.fps, self.paced = fps, paced
        content = encode(frames, format="mpegts", fps=fps, g="5", tune="zerolatency", preset="ultrafast")
        self.parts = [content[i : i + 188 * 4] for i in range(0, len(content), 188 * 4)]
        self.seconds = len(frames) / fps
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self.socket, self.socket.accept()[0] as reader:
            started = time.monotonic()
            for i, part in enumerate(self.parts):
                if self.paced:
                    due = started + self.seconds * i / len(self.parts)
                    time.sleep(max(0.0, due - time.monotonic()))
                try:
                    reader.sendall(part)
                except OSError:
                    return
