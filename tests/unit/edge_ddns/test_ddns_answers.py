"""What answers an update, and is not the name server that has the key."""

from __future__ import annotations

import contextlib
import socket
import threading
from base64 import b64encode

import dns.message
import dns.tsig
import pytest

from services.edge.ddns.rfc2136 import send_update, update_of
from services.edge.ddns.target import parse_target
from services.kernel.errors import SeipdError

KEY = b"k" * 32


@contextlib.contextmanager
def answering(make):
    """Give a port at which one update is answered by what ``make`` returns for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
                answer = make(connection.recv(size, socket.MSG_WAITALL))
                if answer:
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10)


def target_at(port: int):
    server = f"127.0.0.1:{port}"
    return parse_target("rfc2136", name="a.example.org", zone="", server=server, key="k", secret="")


def unsigned(rcode):
    def make(data: bytes) -> bytes:
        # An UPDATE's answer in its shortest form: the header, and all counts zero.
        return data[:2] + b"\xa8" + bytes([rcode]) + bytes(8)

    return make


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (unsigned(0), "bad_message"),
        (unsigned(5), "bad_message"),
        (unsigned(9), "bad_message"),
        (lambda data: b"", "bad_message"),
        (lambda data: b"\0" * 5, "bad_message"),
        (lambda data: b"\0\0" + unsigned(0)(data)[2:], "bad_message"),
        (lambda data: data, "bad_message"),
    ],
)
def test_nothing_but_a_signed_yes_is_a_yes(make, code) -> None:
    with answering(make) as port, pytest.raises(SeipdError) as caught:
        send_update(target_at(port), "192.0.2.1", b64encode(KEY))
    assert caught.value.code == code


def test_a_yes_signed_by_another_key_is_none() -> None:
    other = dns.tsig.Key("k.", b"o" * 32, "hmac-sha256")

    def make(data: bytes) -> bytes:
        query = dns.message.from_wire(data, keyring={other.name: dns.tsig.Key("k.", KEY)})
        answer = dns.message.make_response(query)
        answer.use_tsig(other)
        answer.request_mac = query.mac
        return answer.to_wire()

    with answering(make) as port, pytest.raises(SeipdError) as caught:
        send_update(target_at(port), "192.0.2.1", b64encode(KEY))
    assert caught.value.code == "bad_message"


def test_the_update_names_one_address_alone() -> None:
    update = update_of(target_at(53), "2001:db8::1", KEY)
    assert [one.to_text() for one in update.update] == [
        "a.example.org. ANY A",
        "a.example.org. ANY AAAA",
        "a.example.org. 60 IN AAAA 2001:db8::1",
    ]
