"""A PKCS#11 library in memory: a token that hangs, counts PINs, is pulled out, tells odd points."""

from __future__ import annotations

import threading

import pkcs11
from pkcs11 import exceptions as token_errors

from services.base.crypto.signatures import SigningKey

Attribute, ObjectClass = pkcs11.Attribute, pkcs11.ObjectClass


class FakeKey(dict):
    """A key object: its attributes, and a private one signs."""

    def __init__(self, token: FakeTokenLibrary, attributes: dict) -> None:
        super().__init__(attributes)
        self._token = token

    def sign(self, data: bytes, *, mechanism) -> bytes:
        assert mechanism is pkcs11.Mechanism.EDDSA
        self._token.threads.add(threading.current_thread())
        self._token.go_on.wait()
        self._token.raise_next()
        return self._token.key.sign(data)


class FakeTokenLibrary:
    """Library, token and session in one."""

    def __init__(self, *, pin: str = "271828", label: str = "platform/root-1") -> None:
        self.key = SigningKey(bytes(range(32)))
        self.pin = pin
        self.label = label
        self.flags = pkcs11.TokenFlag(0)
        self.rw = False
        self.pins_tried: list[str] = []
        self.sessions_count = 0
        self.failures: list[Exception] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.threads: set[threading.Thread] = set()
        self.private = FakeKey(self, {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False})
        self.public = FakeKey(
            self,
            {
                Attribute.EC_PARAMS: bytes.fromhex("06032b6570"),
                Attribute.EC_POINT: b"\x04\x20" + self.key.public_key,
            },
        )

    def load(self, _path: str) -> FakeTokenLibrary:
        """Stand in for pkcs11.lib."""
        return self

    def get_token(self, *, token_label: str) -> FakeTokenLibrary:
        self.raise_next()
        assert token_label == "seipd test"
        return self

    def open(self, *, rw: bool, user_pin: str | None = None) -> FakeTokenLibrary:
        self.threads.add(threading.current_thread())
        self.raise_next()
        if user_pin is not None:
            self.pins_tried.append(user_pin)
            if user_pin != self.pin:
                raise token_errors.PinIncorrect
        self.rw = rw
        self.sessions_count += 1
        return self

    def get_key(self, *, object_class, key_type, label: str) -> FakeKey:
        assert key_type is pkcs11.KeyType.EC_EDWARDS
        self.raise_next()
        if label != self.label:
            raise token_errors.NoSuchKey
        return self.private if object_class is ObjectClass.PRIVATE_KEY else self.public

    def close(self) -> None:
        self.raise_next()

    def raise_next(self) -> None:
        """Fail as was said, once each."""
        if self.failures:
            raise self.failures.pop(0)
