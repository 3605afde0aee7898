"""Cameras on this machine: MPEG-TS over TCP, and by RTSP."""

import contextlib
import socket
import struct
import threading
import time

import numpy as np
from numbered_videos import encode


class Camera:
    """A camera on this machine: MPEG-TS over TCP, at its own rate or as fast as it is read."""

    scheme = "tcp"

    def __init__(self, frames: np.ndarray, *, fps: int = 25, paced: bool = True) -> None:
        self.fps, self.paced = fps, paced
        content = encode(frames, format="mpegts", fps=fps, g="5", tune="zerolatency", preset="ultrafast")
        self.parts = [content[i : i + 188 * 4] for i in range(0, len(content), 188 * 4)]
        self.seconds = len(frames) / fps
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"{self.scheme}://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self.socket, self.socket.accept()[0] as reader, contextlib.suppress(OSError):
            self._greet(reader)
            started = time.monotonic()
            for i, part in enumerate(self.parts):
                if self.paced:
                    due = started + self.seconds * i / len(self.parts)
                    time.sleep(max(0.0, due - time.monotonic()))
                self._send(reader, i, part)

    def _greet(self, reader: socket.socket) -> None:
        """What comes before the pictures."""

    def _send(self, reader: socket.socket, number: int, part: bytes) -> None:
        reader.sendall(part)


class RtspCamera(Camera):
    """The same by RTSP (RFC 2326): MPEG-TS in RTP packets, which travel in the connection of the requests."""

    scheme = "rtsp"
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"

    def _greet(self, reader: socket.socket) -> None:
        with reader.makefile("rb") as requests:
            method = ""
            while method != "PLAY":
                method = requests.readline().split()[0].decode()
                told = dict(line.decode().strip().split(": ", 1) for line in iter(requests.readline, b"\r\n"))
                headers = [f"CSeq: {told['CSeq']}", "Session: 1"]
                body = ""
                if method == "OPTIONS":
                    headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                elif method == "DESCRIBE":
                    body = self.sdp
                    headers += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
                elif method == "SETUP":
                    headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
                reader.sendall("\r\n".join(["RTSP/1.0 200 OK", *headers, "", body]).encode())

    def _send(self, reader: socket.socket, number: int, part: bytes) -> None:
        ticks = round(90_000 * self.seconds * number / len(self.parts))
        packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, ticks, 7) + part
        reader.sendall(b"$" + struct.pack(">BH", 0, len(packet)) + packet)
