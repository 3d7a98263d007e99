"""Services start in order and stop in reverse, whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from seipd.daemon.lifecycle import ServiceStack
from services.kernel.errors import ConflictError, StartError
from services.kernel.service import Health, HealthState

COUNT = 6


class Recorded:
    """A service that writes down what happens to it."""

    def __init__(self, number: int, log: list[str], *, fails=None, hangs: bool = False) -> None:
        self.name = f"service-{number}"
        self._log = log
        self._fails = fails
        self._hangs = hangs

    async def start(self) -> None:
        if self._fails is not None:
            raise self._fails
        self._log.append(f"start {self.name}")

    async def stop(self) -> None:
        if self._hangs:
            await asyncio.sleep(60)
        self._log.append(f"stop {self.name}")

    def health(self) -> Health:
        return Health(state=HealthState.OK)


async def test_started_in_order_and_stopped_in_reverse() -> None:
    log: list[str] = []
    async with ServiceStack([Recorded(number, log) for number in range(3)]):
        assert log == ["start service-0", "start service-1", "start service-2"]
        log.clear()
    assert log == ["stop service-2", "stop service-1", "stop service-0"]


@pytest.mark.parametrize("failing", range(COUNT))
async def test_cli_12_a_start_that_fails_names_its_service_and_leaves_none_running(failing) -> None:
    log: list[str] = []
    error = ConflictError("the port is taken", code="port_in_use", mend="choose another")
    services = [
        Recorded(number, log, fails=error if number == failing else None) for number in range(COUNT)
    ]
    with pytest.raises(StartError) as raised:
        async with ServiceStack(services):
            pytest.fail("it must not start")
    assert (raised.value.service, raised.value.code) == (f"service-{failing}", "port_in_use")
    assert raised.value.mend == "choose another"
    started = [line.split()[1] for line in log if line.startswith("start")]
    stopped = [line.split()[1] for line in log if line.startswith("stop")]
    assert [name for name in stopped if name in started] == started[::-1]


async def test_cli_11_a_service_that_hangs_does_not_hold_up_the_others() -> None:
    log: list[str] = []
    services = [Recorded(0, log), Recorded(1, log, hangs=True), Recorded(2, log)]
    async with ServiceStack(services, stop_timeout_s=0.05):
        log.clear()
    assert log == ["stop service-2", "stop service-0"]


async def test_cli_11_a_start_that_is_cancelled_unwinds() -> None:
    log: list[str] = []

    class Slow(Recorded):
        async def start(self) -> None:
            await asyncio.sleep(60)

    async def run() -> None:
        async with ServiceStack([Recorded(0, log), Slow(1, log)]):
            pytest.fail("it must not start")

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log[0] == "start service-0"
    assert log[-1] == "stop service-0"
