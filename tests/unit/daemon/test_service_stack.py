"""Services start in order and stop in reverse, whichever of them fails or hangs, and whenever."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from seipd.cli.exits import exit_status_of
from seipd.daemon.app import _install_signals, _StopSignal
from seipd.daemon.lifecycle import ServiceStack
from services.kernel.errors import ConflictError, StartError, StorageError
from services.kernel.service import Health, HealthState

COUNT = 22


class Recorded:
    """A service that writes down what is done to it."""

    def __init__(
        self, number, journal, *, fails=None, hangs=False, stop_hangs=False, stop_fails=False
    ):
        self.name = f"service {number}"
        self._number, self._journal = number, journal
        self._fails, self._hangs = fails, hangs
        self._stop_hangs, self._stop_fails = stop_hangs, stop_fails
        self.is_up = False

    async def start(self):
        self._journal.append(("start", self._number))
        await asyncio.sleep(0)
        if self._fails is not None:
            raise self._fails
        if self._hangs:
            await asyncio.sleep(3600)
        self.is_up = True

    async def stop(self):
        self._journal.append(("stop", self._number))
        if self._stop_hangs:
            await asyncio.sleep(3600)
        if self._stop_fails:
            raise RuntimeError("stuck")
        self.is_up = False

    def health(self):
        return Health(state=HealthState.OK if self.is_up else HealthState.STOPPED)


def row(journal, **special):
    """``COUNT`` services; ``s5={...}`` says what is special about number 5."""
    return [Recorded(n, journal, **special.get(f"s{n}", {})) for n in range(COUNT)]


def stops(journal):
    return [number for what, number in journal if what == "stop"]


async def test_they_start_in_order_and_stop_in_reverse():
    journal = []
    services = row(journal)
    async with ServiceStack(services):
        assert journal == [("start", n) for n in range(COUNT)]
        assert all(one.is_up for one in services)
    assert stops(journal) == list(reversed(range(COUNT)))


@pytest.mark.parametrize("at", range(COUNT))
async def test_cli_12_a_start_that_fails_stops_the_started_in_reverse_and_names_the_service(at):
    journal = []
    error = ConflictError("the port is taken", code="port_in_use", mend="end what holds it")
    services = row(journal, **{f"s{at}": {"fails": error}})
    with pytest.raises(StartError) as caught:
        async with ServiceStack(services):
            pytest.fail("it came up")
    assert caught.value.service == f"service {at}"
    assert f"service {at}" in str(caught.value)
    assert (caught.value.code, caught.value.mend) == ("port_in_use", "end what holds it")
    assert exit_status_of(caught.value) == 6
    assert [n for what, n in journal if what == "start"] == list(range(at + 1))
    # The one that failed is asked, too: it may have opened something before it failed.
    assert stops(journal) == list(reversed(range(at + 1)))
    assert not any(one.is_up for one in services)


async def test_cli_12_a_fault_of_ours_names_its_service_and_leaves_nothing_behind(caplog):
    journal = []
    services = row(journal, s3={"fails": KeyError("slot")})
    with pytest.raises(StartError, match="service 3: KeyError") as caught:
        async with ServiceStack(services):
            pass
    assert exit_status_of(caught.value) == 1
    assert caught.value.mend
    assert "Traceback" in caplog.text
    assert stops(journal) == [3, 2, 1, 0]


async def test_a_start_error_of_the_services_own_passes_as_it_is():
    error = StartError("no device", service="tunnel", code="no_wireguard", mend="load the module")
    with pytest.raises(StartError) as caught:
        async with ServiceStack(row([], s2={"fails": error})):
            pass
    assert caught.value is error


async def test_a_failed_start_is_told_even_if_stopping_fails_too():
    journal = []
    services = row(journal, s2={"fails": StorageError("disk full")}, s1={"stop_fails": True})
    with pytest.raises(StartError, match="disk full"):
        async with ServiceStack(services):
            pass
    assert stops(journal) == [2, 1, 0]


async def test_cli_11_one_that_hangs_or_fails_at_the_stop_does_not_keep_the_others(caplog):
    journal = []
    services = row(journal, s20={"stop_hangs": True}, s10={"stop_fails": True})
    async with ServiceStack(services, stop_timeout_s=0.01):
        pass
    assert stops(journal) == list(reversed(range(COUNT)))
    assert "service 20 did not stop in time" in caplog.text
    assert "service 10 failed to stop" in caplog.text
    assert [one.name for one in services if one.is_up] == ["service 10", "service 20"]


async def test_what_fails_inside_comes_out_after_all_are_stopped():
    journal = []
    with pytest.raises(ZeroDivisionError):
        async with ServiceStack(row(journal)):
            raise ZeroDivisionError
    assert stops(journal) == list(reversed(range(COUNT)))


async def test_stopping_twice_stops_once():
    journal = []
    stack = ServiceStack(row(journal))
    async with stack:
        pass
    await stack.__aexit__(None, None, None)
    assert len(stops(journal)) == COUNT


class Daemon:
    """The daemon's own signals around a stack, as the daemon puts them."""

    def __init__(self, services, *, reload=lambda: None):
        self._services, self._reload = services, reload
        self.ready = asyncio.Event()
        self.stop = _StopSignal()

    async def run(self):
        loop = asyncio.get_running_loop()
        _install_signals(self.stop, self._reload)
        try:
            async with self.stop.interrupts(), ServiceStack(self._services, stop_timeout_s=0.05):
                self.ready.set()
                await self.stop.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
        return self.stop.exit_status


async def test_cli_11_sigterm_stops_all_in_reverse_and_exits_0():
    journal = []
    daemon = Daemon(row(journal))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        await daemon.ready.wait()
        os.kill(os.getpid(), signal.SIGTERM)
    assert running.result() == 0
    assert stops(journal) == list(reversed(range(COUNT)))


@pytest.mark.parametrize("at", [0, 7, COUNT - 1])
async def test_cli_11_sigterm_during_the_start_stops_what_had_started_and_exits_0(at):
    journal = []
    daemon = Daemon(row(journal, **{f"s{at}": {"hangs": True}}))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        while ("start", at) not in journal:
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
    assert running.result() == 0
    assert not daemon.ready.is_set()
    assert stops(journal) == list(reversed(range(at + 1)))


async def test_cli_11_a_second_sigterm_while_stopping_changes_nothing():
    journal = []
    daemon = Daemon(row(journal, s21={"stop_hangs": True}))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        await daemon.ready.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        while ("stop", 21) not in journal:
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert running.result() == 0
    assert stops(journal) == list(reversed(range(COUNT)))


async def test_cli_13_a_failure_at_run_time_stops_all_and_exits_1(caplog):
    journal = []
    daemon = Daemon(row(journal))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        await daemon.ready.wait()
        daemon.stop.fail(RuntimeError("the disk went away"))
    assert running.result() == 1
    assert stops(journal) == list(reversed(range(COUNT)))
    assert "the disk went away" in caplog.text


async def test_cfg_07_a_reload_with_bad_settings_is_told_and_changes_nothing(caplog, tmp_path):
    from seipd.config.load import load_settings

    path = tmp_path / "seipd.toml"
    path.write_text("htpp-port = 1")
    path.chmod(0o600)
    read = asyncio.Event()

    def reload():
        read.set()
        return load_settings(flags={}, environment={}, config=path)

    journal = []
    daemon = Daemon(row(journal), reload=reload)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        await daemon.ready.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(read.wait(), 60)
        assert stops(journal) == []
        os.kill(os.getpid(), signal.SIGTERM)
    assert running.result() == 0
    assert "did you mean http_port?" in caplog.text
