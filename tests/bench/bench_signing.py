"""Signatures through the signer at 32 in flight against bare libsodium on one core, in turn.

A signer of its own process with the software provider, asked over its unix socket; then what the
time of one signature is made of, each part run alone.

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
from pathlib import Path

import grpc
from nacl import bindings

from seipd.signerd.auditing import Asked, entry_of
from seipd.signerd.auditlog import AuditLog
from seipd.signerd.core import KeyTable
from seipd.signerd.desk import Caller
from seipd.signerd.rows import KeyRow, KeyState
from services.base.crypto.signatures import SigningKey, verify
from services.base.keywrap.unlock import create_unlock_file
from services.base.signing import signer_pb2, signer_pb2_grpc
from tests.fakes.signer_desk import NOW, MemoryAudit, Provider, desk_of

IN_FLIGHT = 32
ROUNDS = 5
MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"x" * 464
TICKS = os.sysconf("SC_CLK_TCK")


def bare(count: int) -> float:
    """Return signatures a second of libsodium alone, in this thread."""
    _, secret = bindings.crypto_sign_seed_keypair(bytes(32))
    began = time.perf_counter()
    for _ in range(count):
        bindings.crypto_sign(MESSAGE, secret)
    return count / (time.perf_counter() - began)


async def through(socket: str, count: int) -> float:
    """Return signatures a second through a service."""
    request = signer_pb2.SignRequest(canonical_bytes=MESSAGE, scope="platform", key_id="root-1")
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = signer_pb2_grpc.SigningStub(channel)
        await stub.Sign(request, wait_for_ready=True)

        async def caller() -> None:
            for _ in range(count // IN_FLIGHT):
                await stub.Sign(request)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return count / (time.perf_counter() - began)


class Echo(signer_pb2_grpc.SigningServicer):
    """Answers without doing anything: what gRPC costs by itself."""

    async def Sign(self, request, context):  # noqa: N802
        return signer_pb2.SignReply(signature=bytes(64), key_id=request.key_id)


async def serve_echo(socket: str) -> None:
    server = grpc.aio.server()
    signer_pb2_grpc.add_SigningServicer_to_server(Echo(), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measured(child: subprocess.Popen, socket: str, count: int) -> tuple[float, float, float]:
    """Return the median of signatures a second, of CPU time each, and of the ratio to bare."""
    rates, costs, ratios = [], [], []
    for _ in range(ROUNDS):
        alone, spent = bare(count), cpu_s(child.pid)
        rate = asyncio.run(through(socket, count))
        costs.append((cpu_s(child.pid) - spent) / count)
        rates.append(rate)
        ratios.append(rate / alone)
    return statistics.median(rates), statistics.median(costs), statistics.median(ratios)


def cpu_us(work, count: int) -> float:
    """Return the CPU time of a call: on a busy machine it says more than the clock does."""
    spent = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - spent) / count * 1e6


async def desk_us(count: int) -> float:
    """Return what the desk takes for one signature, its audit in memory."""
    provider = Provider()
    provider.in_memory = True
    row = KeyRow(
        scope="platform", key_id="root-1", state=KeyState.ACTIVE, handle="h0",
        public_key=provider.public_key("h0"), purposes=("seipd/record/v1",),
    )  # fmt: skip
    desk = desk_of(KeyTable((row,)), provider, audit=MemoryAudit())
    caller = Caller(name="unix")
    spent = time.process_time()
    for _ in range(count):
        await desk.sign(caller, MESSAGE, scope="platform", key_id="root-1")
    return (time.process_time() - spent) / count * 1e6


def audit_us(folder: Path, count: int) -> float:
    """Return what an entry takes that shares its write with 31 others."""
    log = AuditLog(folder / "audit-alone", SigningKey(bytes(32)))
    log.open()
    asked = Asked(call="sign", caller="unix", scope="platform", key_id="root-1", digest="0" * 64)
    batch = [entry_of(asked, at_ms=NOW)] * IN_FLIGHT
    took = cpu_us(lambda: log.append(batch, at_ms=NOW), count // IN_FLIGHT) / IN_FLIGHT
    log.close()
    return took


def started(folder: Path) -> subprocess.Popen:
    unlock = folder / "unlock"
    create_unlock_file(unlock)
    common = [
        "--state", str(folder / "signer"), "--unlock-file", str(unlock),
        "--allow-insecure-same-user",
    ]  # fmt: skip
    program = [sys.executable, "-m", "seipd.signerd"]
    subprocess.run(
        [*program, "keygen", *common, "--purpose", "seipd/record/v1"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return subprocess.Popen([*program, "run", *common, "--log-level", "warning"])


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signer = started(folder)
        echo_socket = str(folder / "echo.sock")
        echo = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_signing", "--echo", echo_socket]
        )
        try:
            rate, cost, ratio = measured(signer, str(folder / "signer/run/signer.sock"), count)
            empty, empty_cost, empty_ratio = measured(echo, echo_socket, count)
        finally:
            for child in (signer, echo):
                child.terminate()
                child.wait(20)
        key = SigningKey(bytes(32))
        signature = key.sign(MESSAGE)
        sign = cpu_us(lambda: key.sign(MESSAGE), count)
        check = cpu_us(lambda: verify(key.public_key, MESSAGE, signature), count)
        print(
            f"through the signer {rate:.0f}/s, {ratio:.3f} of bare libsodium in turn (target 0.3)"
        )
        print(f"a gRPC that does nothing {empty:.0f}/s, {empty_ratio:.3f}")
        print("CPU of one core for one signature, in µs:")
        print(f"  bare libsodium {sign:5.0f}")
        print(f"  the signer     {cost * 1e6:5.0f}, of bare {sign / (cost * 1e6):.3f}")
        print(f"    of it a gRPC that does nothing {empty_cost * 1e6:5.0f}")
        print(f"    sign {sign:.0f}, verify what was signed {check:.0f}")
        print(f"    rules and entry {asyncio.run(desk_us(count)) - sign - check:.0f}")
        print(f"    audit, 32 entries to a write {audit_us(folder, count):.0f}")
        print("    and the rest: handing over between the loop and the thread that writes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--echo"]:
        asyncio.run(serve_echo(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3200)
