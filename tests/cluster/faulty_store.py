"""A proxy before an object store that fails some requests, in the ways that networks and stores fail.

What fails is drawn from a seed: an answer of 500 or 503 instead of the store's, a connection closed before the request
is passed on, one closed after it (the answer is lost), half an answer.
"""

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
BROKEN = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>'
FAULTS = ("busy", "broken", "refused", "lost", "half")
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultyStore:
    """The proxy, listening; `url` is where, `injected` counts what was done to requests."""

    def __init__(self, behind: str, *, share: float, seed: int) -> None:
        self.behind, self.share = urlsplit(behind).netloc, share
        self.faults: tuple[str, ...] = FAULTS  # those to draw from
        self.injected = dict.fromkeys(FAULTS, 0)
        self.requests = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def draw(self) -> str | None:
        """What happens to the next request; None: nothing."""
        with self._lock:
            self.requests += 1
            fault = self._random.choice(self.faults) if self._random.random() < self.share else None
            if fault is not None:
                self.injected[fault] += 1
            return fault

    def end(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _handler(store: FaultyStore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client left
                self.close_connection = True

        def pass_on(self) -> None:
            body = self._body()
            fault = store.draw()
            if fault == "refused":
                self.close_connection = True
                return
            if fault in ("busy", "broken"):
                self._answer(503 if fault == "busy" else 500, [], SLOW_DOWN if fault == "busy" else BROKEN)
                return
            status, headers, content = self._ask(body)
            if fault == "lost":
                self.close_connection = True
                return
            self._answer(status, headers, content, half=fault == "half")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(store.behind, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP | {"expect"}}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
            connection.close()
            return answer.status, [*kept, ("Content-Length", length or str(len(content)))], content

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers or [("Content-Length", str(len(content)))]:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
