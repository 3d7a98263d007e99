"""A fake of AWS KMS that speaks its HTTP API on the loopback, and checks what real KMS checks.

It reads Signature Version 4 by code of its own: the signer's is never judged by itself.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import re
import secrets
import threading
import uuid
from collections import Counter, deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from seipd.signerd.providers.https import HttpsPoster, parse_endpoint
from seipd.signerd.providers.kms import KmsProvider
from seipd.signerd.providers.sigv4 import ServicePlace
from seipd.signerd.secret_files import read_access_key
from services.base.crypto.signatures import SigningKey
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

REGION = "eu-central-1"
ACCESS_KEY_ID = "AKIAFAKEFAKEFAKEFAKE"
MAX_SKEW = datetime.timedelta(minutes=5)
SPKI = bytes.fromhex("302a300506032b6570032100")

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)"
    r"/(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<names>[a-z0-9;-]+)"
    r", Signature=(?P<signature>[0-9a-f]{64})"
)
_ALIAS = re.compile(r"alias/[a-zA-Z0-9/_-]{1,250}\Z")


def signature_is_good(method, headers, body: bytes, authorization: str, secret: str) -> bool:
    """Check one request to / by the rules of Signature Version 4."""
    said = _AUTHORIZATION.fullmatch(authorization)
    if said is None:
        return False
    there = {name.lower(): re.sub(r"\s+", " ", value.strip()) for name, value in headers.items()}
    names = said["names"].split(";")
    if names != sorted(set(names)) or not {"host", "x-amz-date"} <= set(names) <= set(there):
        return False
    request = "\n".join(
        [method, "/", "", *(f"{name}:{there[name]}" for name in names), "", said["names"]]
    )
    request += "\n" + hashlib.sha256(body).hexdigest()
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            there["x-amz-date"],
            f"{said['date']}/{said['region']}/{said['service']}/aws4_request",
            hashlib.sha256(request.encode()).hexdigest(),
        ]
    )
    key = b"AWS4" + secret.encode()
    for part in (said["date"], said["region"], said["service"], "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    good = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return there["x-amz-date"].startswith(said["date"]) and good == said["signature"]


class FakeFaultError(Exception):
    """What the service answers instead of a result."""

    def __init__(self, kind: str, status: int = 400, message: str = "") -> None:
        super().__init__(kind)
        self.kind, self.status, self.message = kind, status, message


@dataclass
class _Key:
    arn: str
    pair: SigningKey
    description: str
    state: str = "Enabled"


class FakeKms:
    """Keys, aliases, one access key; ``faults`` are answered first, one a request.

    A fault is an exception to answer with, ``"drop"`` (the connection ends without an answer),
    ``"after"`` (it is done, and then the connection ends), ``"drip"`` (an answer that never ends)
    or ``"hang"`` (none until ``close``).
    """

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(30)
        self.session_token = ""
        self.keys: dict[str, _Key] = {}
        self.aliases: dict[str, str] = {}
        self.faults: deque[FakeFaultError | str] = deque()
        self.asked: Counter[str] = Counter()
        self.refused: list[str] = []
        self.imposter: SigningKey | None = None
        self.alter_reply = lambda _action, reply: reply
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"kms": self})
        )
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def credentials_file(self) -> str:
        """Return what stands in the file that AWS's own programs read."""
        lines = ["[default]", f"aws_access_key_id = {ACCESS_KEY_ID}"]
        lines.append(f"aws_secret_access_key = {self.secret}")
        if self.session_token:
            lines.append(f"aws_session_token = {self.session_token}")
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        """End it."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, action: str, headers, body: bytes) -> dict:
        """Do one request."""
        if headers.get("Content-Type") != "application/x-amz-json-1.1":
            raise FakeFaultError("SerializationException")
        self._check_caller(headers, body)
        request = json.loads(body)
        with self._lock:
            reply = getattr(self, f"_do_{action}")(request)
        return self.alter_reply(action, reply)

    def _check_caller(self, headers, body: bytes) -> None:
        authorization = headers.get("Authorization", "")
        said = _AUTHORIZATION.fullmatch(authorization)
        if said is None:
            raise FakeFaultError("IncompleteSignatureException")
        if said["id"] != ACCESS_KEY_ID:
            raise FakeFaultError("UnrecognizedClientException")
        sent = headers.get("X-Amz-Date", "")
        now = datetime.datetime.now(datetime.UTC)
        when = datetime.datetime.strptime(sent, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        signed = {"host", "x-amz-date", "x-amz-target"}
        if self.session_token:
            signed |= {"x-amz-security-token"}
            if headers.get("X-Amz-Security-Token") != self.session_token:
                raise FakeFaultError("ExpiredTokenException")
        if (
            abs(now - when) > MAX_SKEW
            or (said["region"], said["service"]) != (REGION, "kms")
            or not signed <= set(said["names"].split(";"))
            or not signature_is_good("POST", headers, body, authorization, self.secret)
        ):
            raise FakeFaultError("InvalidSignatureException", message=f"canonical: {dict(headers)}")

    def _do_CreateKey(self, request: dict) -> dict:  # noqa: N802 (an action of AWS)
        if (request.get("KeySpec"), request.get("KeyUsage")) != (
            "ECC_NIST_EDWARDS25519",
            "SIGN_VERIFY",
        ):
            raise FakeFaultError("ValidationException")
        arn = f"arn:aws:kms:{REGION}:111122223333:key/{uuid.uuid4()}"
        pair = SigningKey(secrets.token_bytes(32))
        self.keys[arn] = _Key(arn=arn, pair=pair, description=request.get("Description", ""))
        # A time as a float is what KMS tells, too.
        return {"KeyMetadata": {"Arn": arn, "KeyState": "Enabled", "CreationDate": 1.5e9}}

    def _do_CreateAlias(self, request: dict) -> dict:  # noqa: N802
        name = request["AliasName"]
        if not _ALIAS.match(name) or name.startswith("alias/aws/"):
            raise FakeFaultError("InvalidAliasNameException")
        if name in self.aliases:
            raise FakeFaultError("AlreadyExistsException")
        self.aliases[name] = self._key(request["TargetKeyId"]).arn
        return {}

    def _do_ScheduleKeyDeletion(self, request: dict) -> dict:  # noqa: N802
        key = self._key(request["KeyId"])
        key.state = "PendingDeletion"
        return {"KeyId": key.arn}

    def _do_GetPublicKey(self, request: dict) -> dict:  # noqa: N802
        key = self._usable(request["KeyId"])
        return {
            "KeyId": key.arn,
            "PublicKey": base64.b64encode(SPKI + key.pair.public_key).decode(),
            "KeySpec": "ECC_NIST_EDWARDS25519",
            "KeyUsage": "SIGN_VERIFY",
            "SigningAlgorithms": ["ED25519_SHA_512", "ED25519_PH_SHA_512"],
        }

    def _do_Sign(self, request: dict) -> dict:  # noqa: N802
        key = self._usable(request["KeyId"])
        message = base64.b64decode(request["Message"], validate=True)
        if request["SigningAlgorithm"] != "ED25519_SHA_512" or request["MessageType"] != "RAW":
            raise FakeFaultError("ValidationException")
        if not 1 <= len(message) <= 4096:
            raise FakeFaultError("ValidationException")
        signature = (self.imposter or key.pair).sign(message)
        return {
            "KeyId": key.arn,
            "Signature": base64.b64encode(signature).decode(),
            "SigningAlgorithm": "ED25519_SHA_512",
        }

    def _usable(self, name: str) -> _Key:
        key = self._key(name)
        if key.state == "Disabled":
            raise FakeFaultError("DisabledException")
        if key.state != "Enabled":
            raise FakeFaultError("KMSInvalidStateException")
        return key

    def _key(self, name: str) -> _Key:
        arn = self.aliases.get(name, name)
        if arn not in self.keys:
            raise FakeFaultError("NotFoundException", message=f"{name} is not found.")
        return self.keys[arn]


def open_kms(kms: FakeKms, credentials_file: Path, **options) -> KmsProvider:
    """Return a provider of the fake, as the program makes one."""
    if not credentials_file.exists():
        credentials_file.touch(mode=0o600)
        credentials_file.write_text(kms.credentials_file())
    clock = options.pop("clock", SystemClock())
    return KmsProvider(
        poster=HttpsPoster(parse_endpoint(kms.endpoint), clock=clock),
        place=ServicePlace(region=REGION, service="kms"),
        alias_prefix="seipd/",
        credentials=lambda: read_access_key(credentials_file),
        clock=clock,
        jitter=options.pop("jitter", secrets.SystemRandom()),
        **options,
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kms: FakeKms

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = self.headers.get("X-Amz-Target", "").removeprefix("TrentService.")
        self.kms.asked[action] += 1
        fault = self.kms.faults.popleft() if self.kms.faults else None
        if isinstance(fault, str) and fault != "after":
            self._misbehave(fault)
            return
        try:
            if isinstance(fault, FakeFaultError):
                raise fault
            status, reply = 200, self.kms.answer(action, self.headers, body)
        except FakeFaultError as error:
            self.kms.refused.append(error.kind)
            kind = f"com.amazonaws.kms#{error.kind}"
            status, reply = error.status, {"__type": kind, "message": error.message}
        if fault == "after":
            self.close_connection = True
            return
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _misbehave(self, fault: str) -> None:
        self.close_connection = True
        if fault == "hang":
            self.kms.closing.wait()
        elif fault == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            try:
                while not self.kms.closing.wait(0.01):
                    self.wfile.write(b" ")
            except OSError:
                return

    def log_message(self, *_arguments) -> None:
        """Say nothing."""
