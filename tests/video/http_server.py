"""A web server on this machine that serves files by ranges, and counts what it sent."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files(ThreadingHTTPServer):
    """Files by their paths, and how they are served."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, bytes] = {}
        self.sent = 0
        """Number of bytes of files that were sent."""
        self.ranges = True
        """Whether ranges are served; otherwise the whole file is."""
        self.failures = 0
        """Number of requests to answer with an error first."""

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Files
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        content = self.server.content.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return
        if with_content and self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        whole = len(content)
        if wanted and self.server.ranges:
            first, last = int(wanted[1]), min(int(wanted[2] or whole - 1), whole - 1)
            content = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        else:
            self.send_response(200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(content) if not wanted else "same"}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.server.sent += len(content)
            with contextlib.suppress(OSError):
                self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Files]:
    """A server that runs while the body does."""
    server = Files()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
