"""What systemd hears from the daemon."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from seipd.daemon.sdnotify import (
    keep_watchdog,
    notify,
    notify_reloading,
    notify_status,
    watchdog_interval_s,
)
from services.runtime.tasks import TaskOwner


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    name = str(tmp_path / "n") if request.param == "path" else f"\0seipd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield sock


def heard(sock):
    messages = []
    while True:
        try:
            messages.append(sock.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_each_message_arrives_whole(systemd):
    notify("READY=1")
    notify_status("server-1 is up")
    notify_reloading()
    ready, status, reloading = heard(systemd)
    assert (ready, status) == ("READY=1", "STATUS=server-1 is up")
    first, second = reloading.split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdigit()


def test_a_systemd_that_does_not_listen_does_not_end_the_daemon(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    assert "systemd could not be told" in caplog.text


@pytest.mark.parametrize(
    ("told", "process", "interval_s"),
    [
        ("60000000", None, 30.0),
        ("60000000", "own", 30.0),
        ("60000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("-1", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_patience_and_only_where_it_waits(
    monkeypatch, told, process, interval_s
):
    monkeypatch.setenv("WATCHDOG_USEC", told)
    if process is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "own" else process)
    assert watchdog_interval_s() == interval_s


async def test_the_watchdog_hears_of_a_loop_that_turns_again_and_again(systemd):
    tasks, messages = TaskOwner("test"), []
    tasks.spawn(keep_watchdog(0.001), name="watchdog")
    try:
        while len(messages) < 3:
            await asyncio.sleep(0.001)
            messages += heard(systemd)
    finally:
        await tasks.close()
    assert set(messages) == {"WATCHDOG=1"}
