"""One POST with a deadline: what a service, or whoever sits in between, can do to it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from seipd.signerd.providers import kms_api
from seipd.signerd.providers.https import Endpoint, HttpsPoster, NotSentError, parse_endpoint
from services.kernel.errors import ConfigError, UnreachableError
from services.runtime.clock import SystemClock

SOON_S = 0.2
LONG_S = 30.0
NAME = "127.0.0.1"


class Listener:
    """A service that does one thing with each connection; ``heard`` is what was sent to it."""

    def __init__(self, act, tls: ssl.SSLContext | None = None) -> None:
        self.heard: list[bytes] = []
        self.ended = threading.Event()
        self._act = act
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                with contextlib.suppress(OSError), self._wrapped(plain) as connection:
                    self.heard.append(request_of(connection))
                    self._act(connection, self.ended)

    def _wrapped(self, plain: socket.socket) -> socket.socket:
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)

    def close(self) -> None:
        self.ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)


@pytest.fixture
def listen():
    made = []

    def listen(act, tls: ssl.SSLContext | None = None) -> Listener:
        made.append(Listener(act, tls))
        return made[-1]

    yield listen
    for one in made:
        one.close()


def request_of(connection: socket.socket) -> bytes:
    """Read one whole request: who closes with bytes unread resets the connection."""
    with connection.makefile("rb") as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (line := stream.readline()):
            head += line
        length = re.search(rb"Content-Length: (\d+)", head)
        return head + stream.read(int(length[1]) if length else 0)


def poster_of(listener: Listener, *, tls: bool = False) -> HttpsPoster:
    place = Endpoint(host=NAME, port=listener.port, tls=tls)
    return HttpsPoster(place, clock=SystemClock())


def answering(data: bytes):
    return lambda connection, _ended: connection.sendall(data)


def dripping(data: bytes):
    def drip(connection, ended) -> None:
        connection.sendall(data)
        while not ended.wait(0.01):
            connection.sendall(b"x")

    return drip


def certificate_for(folder, name: str) -> str:
    """Make a certificate for an address and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "tls.pem"
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(encoding)
    )
    return str(path)


def server_tls(path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_it_posts_the_bytes_and_returns_the_answer(listen) -> None:
    listener = listen(answering(b"HTTP/1.1 400 Bad\r\nContent-Length: 5\r\n\r\nwords and more"))
    headers = {"Host": "kms.example", "X-Amz-Target": "TrentService.Sign"}
    assert poster_of(listener).post(headers, b"body", within_s=LONG_S) == (400, b"words")
    head, _, body = listener.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert head.count(b"Host: ") == 1
    assert body == b"body"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\nwithout a length",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + bytes(70_000),
    ],
)
def test_a_damaged_or_endless_answer_is_none(listen, answer) -> None:
    with pytest.raises(UnreachableError) as caught:
        poster_of(listen(answering(answer))).post({}, b"", within_s=LONG_S)
    assert not isinstance(caught.value, NotSentError), "it may have been done"


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"],
)
def test_sgn_10_a_byte_now_and_then_does_not_hold_it_up(listen, begin) -> None:
    with pytest.raises(UnreachableError):
        poster_of(listen(dripping(begin))).post({}, b"", within_s=SOON_S)


def test_it_goes_nowhere_else(listen) -> None:
    elsewhere = listen(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\n"
    moved += "Content-Length: 0\r\n\r\n"
    status, _ = poster_of(listen(answering(moved.encode()))).post({}, b"", within_s=LONG_S)
    assert status == 307
    assert elsewhere.heard == []


def test_it_takes_no_proxy_from_the_environment(listen, monkeypatch) -> None:
    proxy = listen(answering(b""))
    for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    listener = listen(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert poster_of(listener).post({}, b"", within_s=LONG_S) == (200, b"")
    assert proxy.heard == []


def test_nobody_listening_is_certainly_not_done() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = Endpoint(host=NAME, port=port, tls=False)
    with pytest.raises(NotSentError):
        HttpsPoster(place, clock=SystemClock()).post({}, b"", within_s=LONG_S)


def test_a_certificate_that_nobody_vouches_for_is_told_nothing(listen, tmp_path) -> None:
    path = certificate_for(tmp_path, NAME)
    listener = listen(answering(b""), server_tls(path))
    with pytest.raises(NotSentError, match="CERTIFICATE_VERIFY_FAILED"):
        poster_of(listener, tls=True).post({"A": "secret"}, b"secret", within_s=LONG_S)
    assert listener.heard == []


def test_a_certificate_of_another_name_is_told_nothing(listen, tmp_path, monkeypatch) -> None:
    path = certificate_for(tmp_path, "192.0.2.1")
    monkeypatch.setenv("SSL_CERT_FILE", path)
    listener = listen(answering(b""), server_tls(path))
    with pytest.raises(NotSentError, match="CERTIFICATE_VERIFY_FAILED"):
        poster_of(listener, tls=True).post({"A": "secret"}, b"secret", within_s=LONG_S)
    assert listener.heard == []


def test_over_tls_with_a_certificate_that_is_trusted(listen, tmp_path, monkeypatch) -> None:
    path = certificate_for(tmp_path, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwords"
    poster = poster_of(listen(answering(answer), server_tls(path)), tls=True)
    assert poster.post({}, b"body", within_s=LONG_S) == (200, b"words")
    silent = listen(dripping(b""), server_tls(path))
    with pytest.raises(UnreachableError):
        poster_of(silent, tls=True).post({}, b"body", within_s=SOON_S)


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"http://{text}"):
        with contextlib.suppress(ConfigError):
            endpoint = parse_endpoint(url)
            assert endpoint.tls or endpoint.host in {"127.0.0.1", "::1", "localhost"}


@given(st.binary(max_size=300), st.integers(400, 599))
def test_any_bytes_are_an_answer_of_kms_or_an_error_of_ours(body: bytes, status: int) -> None:
    assert kms_api.error_of(status, body).code in {"kms_refused", "kms_unavailable"}
    for kind in (kms_api.KeyReply, kms_api.SignReply, kms_api.CreateReply):
        with contextlib.suppress(kms_api.KmsError):
            kms_api.decode_reply(body, kind)


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=80))
def test_any_answer_that_is_decoded_is_a_signature_or_an_error_of_ours(
    signature: str, algorithm: str, key_id: str
) -> None:
    reply = kms_api.SignReply(KeyId=key_id, Signature=signature, SigningAlgorithm=algorithm)
    with contextlib.suppress(kms_api.KmsError):
        assert len(kms_api.signature_of(reply, key_id)) == 64
    key = kms_api.KeyReply(
        KeyId=key_id,
        PublicKey=signature,
        KeySpec=kms_api.KEY_SPEC,
        KeyUsage=kms_api.KEY_USAGE,
        SigningAlgorithms=[kms_api.ALGORITHM],
    )
    with contextlib.suppress(kms_api.KmsError):
        assert len(kms_api.public_key_of(key)) == 32
