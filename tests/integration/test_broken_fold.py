"""A server that folds wrongly is noticed by all, in a real mesh; the proof is judged elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from seipd.lab.mesh import Lab
from tests.fakes.labs import lab_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

# The real daemon, but for one thing: the root that it tells of a state is another.
FOLDS_WRONGLY = """
import msgspec
from services.base.ledger import telling
right = telling.word_at
def wrong(fold, tick_ms):
    word = right(fold, tick_ms)
    return word and msgspec.structs.replace(word, root=word.root[::-1])
telling.word_at = wrong
from seipd.cli.main import main
main()
"""


class BrokenLab(Lab):
    """Its third server can be run broken."""

    breaks = False

    def _program(self, program, host):
        words = super()._program(program, host)
        if self.breaks and program == "seipd" and host.name == "s3":
            return [words[0], "-c", FOLDS_WRONGLY, *words[3:]]
        return words

    def daemon_pid(self, host):
        return self.broken.pid if self.breaks and host.name == "s3" else super().daemon_pid(host)


@pytest.fixture(scope="module")
def lab():
    """Three servers, all of them witnesses."""
    with lab_of(3, kind=BrokenLab) as built:
        try:
            built.up(lambda line: None)
            yield built
        finally:
            built.breaks = False


def until(probe, seconds: float) -> float:
    """Wait until something holds; return how long it took."""
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.3)
    return time.monotonic() - begun


def alarm(lab: Lab, name: str) -> tuple[str, str]:
    services = lab.status(lab.plan.host(name))["services"]
    (found,) = [one for one in services if one["name"] == "alarm"]
    return found["state"], found["detail"]


def said(lab: Lab, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    host = lab.plan.host(name)
    command = [*host.enter(), sys.executable, "-m", "seipd", "--data-root", str(host.data_root)]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False)


def test_led_05_gos_18_a_server_that_folds_wrongly_raises_an_alarm_everywhere(
    lab: Lab, record_property
) -> None:
    ids = {name: lab.status(lab.plan.host(name))["server_id"] for name in ("s1", "s2", "s3")}
    until(lambda: lab.status(lab.plan.host("s1"))["agreed_state"] is not None, 60)
    assert [alarm(lab, name)[0] for name in ids] == ["ok"] * 3
    third = lab.plan.host("s3")
    lab.stop_server(third)
    lab.breaks = True
    lab.broken = lab.launch_server(third)
    took_s = until(lambda: alarm(lab, "s1")[0] == "degraded", 70)
    record_property("seconds_to_alarm", round(took_s, 1))
    both = ", ".join(sorted([ids["s1"], ids["s2"]]))
    until(lambda: f"say {both};" in alarm(lab, "s1")[1], 30)
    assert f"say {ids['s3']};" in alarm(lab, "s1")[1]
    until(lambda: alarm(lab, "s2")[0] == "degraded", 40)
    # The broken one itself is not healthy: it stands alone.
    until(lambda: alarm(lab, "s3")[0] == "failed", 40)

    for words in (("trust", "status"), ("doctor",)):
        told = said(lab, "s1", *words)
        assert (told.returncode, ids["s3"] in told.stdout) == (1, True)
    (proof, *_) = sorted((lab.plan.host("s2").data_root / "alarms").glob("*.json"))
    program = [sys.executable, "-m", "seipd.cli.verify", "state", str(proof), "--json"]
    judged = subprocess.run(program, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr
    assert [ids["s3"]] in json.loads(judged.stdout)["roots"].values()
