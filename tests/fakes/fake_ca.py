"""A CA with bad manners: HTTPS on the loopback that answers what a test says.

Its ``renewalInfo`` is a double of RFC 9773: the pebble of Debian has none.
"""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from typing import TYPE_CHECKING, Any

from services.kernel import canonical
from tests.fakes.pebble import TestAuthority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Answer = tuple[int, dict[str, str], bytes]
    Handler = Callable[[str, bytes], Answer]


class FakeCa:
    """Answers by path; a path that nobody set is 404. Every request is counted."""

    def __init__(self, folder: Path) -> None:
        authority = TestAuthority()
        key, certificate = authority.issue("localhost", "127.0.0.1")
        self.ca_file = folder / "fake-ca.pem"
        self.ca_file.write_bytes(authority.pem)
        pair = folder / "fake-ca-server.pem"
        pair.write_bytes(key + certificate)
        self.handlers: dict[str, Handler] = {}
        self.asked: list[str] = []
        fake = self

        class Handle(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                fake.asked.append(f"{self.command} {self.path}")
                path = next((one for one in fake.handlers if self.path.startswith(one)), "")
                status, headers, data = (
                    fake.handlers[path](self.path, body) if path else (404, {}, b"")
                )
                self.send_response(status)
                sent = {"Content-Length": str(len(data)), "Replay-Nonce": "bm9uY2U", **headers}
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            do_GET = do_POST = do_HEAD = _answer  # noqa: N815 (http.server's names)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handle)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def base(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeCa:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def directory(self, **more: str) -> None:
        """Answer a good directory at ``/dir``."""
        names = {
            "newNonce": f"{self.base}/nonce",
            "newAccount": f"{self.base}/account",
            "newOrder": f"{self.base}/order",
            **more,
        }
        self.handlers["/dir"] = lambda *_: (200, JSON, canonical.encode(names))
        self.handlers["/nonce"] = lambda *_: (200, {}, b"")
        self.handlers["/account"] = lambda *_: (201, {**JSON, "Location": f"{self.base}/me"}, b"{}")

    def problem(self, kind: str, status: int = 403, **headers: str) -> Handler:
        """Return what answers a problem document."""
        body: dict[str, Any] = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": "no"}
        sent = {"Content-Type": "application/problem+json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return lambda *_: (status, sent, canonical.encode(body))


JSON = {"Content-Type": "application/json"}
