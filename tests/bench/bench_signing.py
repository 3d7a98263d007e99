"""Signatures through the signer at 32 in flight against bare libsodium on one core, in turn.

A signer of its own process with the software provider, asked over its unix socket: it has one CPU,
and who asks another. One signature to a call, then several, then through the client of the daemon,
which checks each; then what the CPU time of one signature is made of.

Run: python -m tests.bench.bench_signing [SIGNATURES]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from nacl import bindings

from seipd.signerd.auditing import Asked, entry_of
from seipd.signerd.auditlog import AuditLog
from seipd.signerd.core import KeyTable
from seipd.signerd.desk import Caller, Wanted
from seipd.signerd.rows import KeyRow, KeyState
from services.base.crypto.signatures import SigningKey, verify
from services.base.keywrap.unlock import create_unlock_file
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.base.signing.client import GrpcSigner
from services.kernel.signing import MAX_SIGNATURES_PER_CALL
from tests.fakes.signer_desk import NOW, Provider, desk_of

IN_FLIGHT = 32
ROUNDS = 7
TARGET = 0.3
SEVERAL = (1, 8, 16, MAX_SIGNATURES_PER_CALL)
MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"x" * 464
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Medians over the rounds."""

    rate: float
    ratio: float
    """Of the rate of bare libsodium, measured in the same round."""
    cpu_us: float
    """Of the service, for one signature."""
    cpu_ratio: float
    """CPU time of libsodium for one signature, by that of the service."""


def bare(count: int) -> tuple[float, float]:
    """Return signatures a second of libsodium alone, in this thread, and its CPU time for one."""
    _, secret = bindings.crypto_sign_seed_keypair(bytes(32))
    began, spent = time.perf_counter(), time.process_time()
    for _ in range(count):
        bindings.crypto_sign(MESSAGE, secret)
    return count / (time.perf_counter() - began), (time.process_time() - spent) / count


def request_of(several: int) -> signer_pb2.SignRequest:
    one = signer_pb2.SignRequest(canonical_bytes=MESSAGE, scope="platform", key_id="root-1")
    made = signer_pb2.SignRequest()
    made.CopyFrom(one)
    made.more.extend([one] * (several - 1))
    return made


async def through(socket: str, count: int, several: int) -> float:
    """Return signatures a second through a service, so many to a call."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = signer_pb2_grpc.SigningStub(channel)
        await stub.Sign(request_of(1), wait_for_ready=True)

        async def caller() -> None:
            for _ in range(count // IN_FLIGHT):
                reply = await stub.Sign(request_of(several))
                signatures = [one.signature for one in (reply, *reply.more)]
                if [len(one) for one in signatures] != [64] * several:
                    raise SystemExit(f"refused: {reply}")

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT // several)))
        return count / (time.perf_counter() - began)


async def by_client(socket: str, count: int) -> float:
    """Return signatures a second through the client of the daemon, 32 of whose callers ask."""
    client = GrpcSigner(socket)
    await client.sign(MESSAGE, scope="platform", key_id="root-1")

    async def caller() -> None:
        for _ in range(count // IN_FLIGHT):
            await client.sign(MESSAGE, scope="platform", key_id="root-1")

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


class Echo(signer_pb2_grpc.SigningServicer):
    """Answers without doing anything: what gRPC costs by itself."""

    async def Sign(self, request, context):  # noqa: N802
        more = [
            signer_pb2.SignReply(signature=bytes(64), key_id=one.key_id) for one in request.more
        ]
        return signer_pb2.SignReply(signature=bytes(64), key_id=request.key_id, more=more)


async def serve_echo(socket: str) -> None:
    server = grpc.aio.server()
    signer_pb2_grpc.add_SigningServicer_to_server(Echo(), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measured(child: subprocess.Popen, asking, count: int) -> Measured:
    """Ask in rounds, each beside one of bare libsodium; ``asking`` returns the rate."""
    rows = []
    for _ in range(ROUNDS):
        alone, alone_s = bare(count)
        spent = cpu_s(child.pid)
        rate = asyncio.run(asking())
        cost_s = (cpu_s(child.pid) - spent) / count
        rows.append((rate, rate / alone, cost_s * 1e6, alone_s / cost_s))
    rate, ratio, cost_us, cpu_ratio = map(statistics.median, zip(*rows, strict=True))
    return Measured(rate=rate, ratio=ratio, cpu_us=cost_us, cpu_ratio=cpu_ratio)


def cpu_us(work, count: int) -> float:
    """Return the CPU time of a call: on a busy machine it says more than the clock does."""
    spent = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - spent) / count * 1e6


class NoAudit:
    """Writes nothing."""

    async def write(self, entries, *, at_ms: int) -> None:
        pass


async def desk_us(count: int) -> float:
    """Return what the desk takes for one signature of 16 in a call, without its audit."""
    provider = Provider()
    provider.in_memory = True
    row = KeyRow(
        scope="platform", key_id="root-1", state=KeyState.ACTIVE, handle="h0",
        public_key=provider.public_key("h0"), purposes=("seipd/record/v1",),
    )  # fmt: skip
    desk = desk_of(KeyTable((row,)), provider, audit=NoAudit())
    caller = Caller(name="unix")
    wanted = [Wanted(data=MESSAGE, scope="platform", key_id="root-1")] * 16
    spent = time.process_time()
    for _ in range(count // 16):
        await desk.sign_all(caller, wanted)
    return (time.process_time() - spent) / count * 1e6


def audit_us(folder: Path, count: int) -> float:
    """Return what the entry of a call of 16 takes for each of them."""
    log = AuditLog(folder / "audit-alone", SigningKey(bytes(32)))
    log.open()
    digest, size_bytes = Wanted(data=MESSAGE, scope="platform", key_id="root-1").written()
    asked = Asked(
        call="sign", caller="unix", scope="platform", key_id="root-1",
        digest=digest, size_bytes=size_bytes, more=[(digest, size_bytes)] * 15,
    )  # fmt: skip
    entry = entry_of(asked, at_ms=NOW)
    took = cpu_us(lambda: log.append([entry], at_ms=NOW), count // 16) / 16
    log.close()
    return took


@contextmanager
def services(folder: Path):
    """Give a signer and an echo, with their sockets, on a CPU of their own where there are two."""
    unlock, echo_socket = folder / "unlock", folder / "echo.sock"
    create_unlock_file(unlock)
    common = [
        "--state", str(folder / "signer"), "--unlock-file", str(unlock),
        "--allow-insecure-same-user",
    ]  # fmt: skip
    program = [sys.executable, "-m", "seipd.signerd"]
    keygen = [*program, "keygen", *common, "--purpose", "seipd/record/v1"]
    subprocess.run(keygen, check=True, stdout=subprocess.DEVNULL)
    echo = [sys.executable, "-m", "tests.bench.bench_signing", "--echo", str(echo_socket)]
    mine, *others = sorted(os.sched_getaffinity(0))
    # Children begin where their parent is: theirs first, then mine.
    os.sched_setaffinity(0, {*others[:1]} or {mine})
    children = [
        subprocess.Popen(one)
        for one in ([*program, "run", *common, "--log-level", "warning"], echo)
    ]
    os.sched_setaffinity(0, {mine})
    try:
        yield children, (str(folder / "signer/run/signer.sock"), str(echo_socket))
    finally:
        for child in children:
            child.terminate()
            child.wait(20)


def tell(what: str, found: Measured) -> None:
    print(
        f"{what:<52}{found.rate:7.0f}/s  {found.ratio:.3f} of bare;"
        f" CPU of the service {found.cpu_us:4.0f} µs, {found.cpu_ratio:.3f} of bare"
    )


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name, services(Path(name)) as (children, sockets):
        (signer, echo), (socket, echo_socket) = children, sockets
        best = 0.0
        for several in SEVERAL:
            found = measured(signer, lambda many=several: through(socket, count, many), count)
            tell(f"the signer, {several} to a call", found)
            best = max(best, found.ratio)
        tell("the client of the daemon", measured(signer, lambda: by_client(socket, count), count))
        empty = {}
        for several in (1, 16):
            empty[several] = measured(
                echo, lambda many=several: through(echo_socket, count, many), count
            )
            tell(f"a gRPC that does nothing, {several} to a call", empty[several])
        print(f"best {best:.3f} of bare libsodium, target {TARGET}")
        key = SigningKey(bytes(32))
        signature = key.sign(MESSAGE)
        sign = cpu_us(lambda: key.sign(MESSAGE), count)
        check = cpu_us(lambda: verify(key.public_key, MESSAGE, signature), count) / 16
        desk = asyncio.run(desk_us(count)) - sign - check
        print("of the CPU time of a signature of 16 in a call, in µs, each part alone:")
        print(f"  signing {sign:.0f}, a sixteenth of checking the last {check:.0f}")
        print(f"  rules, and what is written down {desk:.0f}")
        print(f"  audit, one entry of 16 {audit_us(Path(name), count):.0f}")
        print(f"  gRPC {empty[16].cpu_us:.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--echo"]:
        asyncio.run(serve_echo(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3200)
