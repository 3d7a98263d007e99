"""STUN answers a second on one core: our server beside coturn, in turn.

    python -m tests.bench.bench_stun [--seconds 2] [--rounds 7]

The same 20 bytes are asked of both by the same client on another core, which always has a few
hundred questions under way; the median of the rounds' ratios counts. Where other programs want the
same cores, the answers a second of CPU time that a server used tell more than those a second of the
clock. Ours is the service of the daemon with its sockets and its bookkeeping of who asks how often.
Needs Debian's coturn.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from services.edge.stun.service import StunService, StunSettings
from services.runtime.clock import SystemClock

TARGET = 0.8
SERVER_CPU, CLIENT_CPU = 0, 1
HOST = "127.0.0.1"
QUESTION = b"\0\1\0\0\x21\x12\xa4\x42" + b"a benchmark!"
BATCH = 64
WINDOW = 512
LOST_AFTER_S = 0.2
MSG_DONTWAIT = 0x40

_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _MsgHdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _MMsgHdr(ctypes.Structure):
    _fields_ = [("header", _MsgHdr), ("size", ctypes.c_uint)]


def batch_of(buffers: list[ctypes.Array]) -> ctypes.Array:
    """Return what sendmmsg(2) and recvmmsg(2) take."""
    batch = (_MMsgHdr * len(buffers))()
    for entry, buffer in zip(batch, buffers, strict=True):
        vector = _IoVec(ctypes.addressof(buffer), len(buffer))
        entry.header.iov = ctypes.pointer(vector)
        entry.header.iov_count = 1
    return batch


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(port: int, seconds: float) -> int:
    """Ask as much as is answered; return the number of answers."""
    sent = [ctypes.create_string_buffer(QUESTION, len(QUESTION)) for _ in range(BATCH)]
    got = [ctypes.create_string_buffer(256) for _ in range(BATCH)]
    sending, receiving = batch_of(sent), batch_of(got)
    answers, under_way = 0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.connect((HOST, port))
        number = sock.fileno()
        ends_s = heard_s = time.monotonic()
        ends_s += seconds
        while (now_s := time.monotonic()) < ends_s:
            if under_way <= WINDOW - BATCH:
                under_way += max(_libc.sendmmsg(number, sending, BATCH, MSG_DONTWAIT), 0)
            count = _libc.recvmmsg(number, receiving, BATCH, MSG_DONTWAIT, None)
            if count > 0:
                answers, under_way, heard_s = answers + count, under_way - count, now_s
            elif now_s - heard_s > LOST_AFTER_S:
                under_way, heard_s = 0, now_s
    assert got[0].raw[:2] == b"\x01\x01", "no success"
    return answers


@contextmanager
def ours():
    words = [sys.executable, "-m", "tests.bench.bench_stun", "--serve"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield int(child.stdout.readline()), child.pid
        finally:
            child.kill()


@contextmanager
def coturn():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HOST, 0))
        port = one.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("taskset", "-c", str(SERVER_CPU), "turnserver", "-n", "-S", "-L", HOST),
            *("-p", str(port), "--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "-m", "1"),
            *("--log-file", "/dev/null", "--pidfile", f"{folder}/pid", "--no-rfc5780"),
        ]
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        ) as child:
            try:
                wait_for(port)
                yield port, child.pid
            finally:
                child.kill()


def wait_for(port: int) -> None:
    deadline_s = time.monotonic() + 20
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        one.connect((HOST, port))
        while time.monotonic() < deadline_s:
            try:
                one.send(QUESTION)
                one.recv(512)
            except OSError:
                time.sleep(0.05)
            else:
                return
    sys.exit("coturn does not answer")


async def serve() -> None:
    os.sched_setaffinity(0, {SERVER_CPU})
    service = StunService(settings=StunSettings(bind_address=HOST, port=0), clock=SystemClock())
    await service.start()
    print(service.port, flush=True)
    await asyncio.Event().wait()


def measure(server: tuple[int, int], seconds: float) -> tuple[float, float]:
    """Return the answers a second of the clock, and of the server's CPU time."""
    port, pid = server
    before_s = cpu_s(pid)
    count = asked(port, seconds)
    return count / seconds, count / max(cpu_s(pid) - before_s, 0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    os.sched_setaffinity(0, {CLIENT_CPU})
    by_clock, by_cpu = [], []
    with ours() as one, coturn() as other:
        for number in range(options.rounds):
            (mine, mine_cpu), (theirs, theirs_cpu) = (
                measure(server, options.seconds) for server in (one, other)
            )
            by_clock.append(mine / theirs)
            by_cpu.append(mine_cpu / theirs_cpu)
            print(
                f"round {number + 1}: ours {mine:,.0f}/s ({mine_cpu:,.0f} per CPU second),"
                f" coturn {theirs:,.0f}/s ({theirs_cpu:,.0f}): {by_clock[-1]:.2f}"
            )
    ratio, cpu_ratio = statistics.median(by_clock), statistics.median(by_cpu)
    best = max(ratio, cpu_ratio)
    print(f"ratio {ratio:.2f} by the clock, {cpu_ratio:.2f} by CPU time; goal {TARGET}")
    return 0 if best >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
