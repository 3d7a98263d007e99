"""What stands in a log: one line an event, nothing forged, nothing secret, no flood."""

from __future__ import annotations

import logging

import orjson
import pytest

from services.runtime.logs import EVENTS_PER_WINDOW, FloodFilter, LineFormatter, escaped

EVIL = "bob\n2026-01-01T00:00:00.000Z error seipd forged\x1b[31m\x9b2J\u2028\u202e\x7f\0"


def record(message="joined", *values, created=1_800_000_000.25, error=None, **fields):
    made = logging.LogRecord("services.x", logging.INFO, __file__, 1, message, values, error)
    made.created = created
    made.__dict__.update(fields)
    return made


def line(made, *, json=False):
    return LineFormatter(json=json).format(made)


def test_an_event_is_one_line_with_time_level_service_and_ids():
    assert line(record("node %s joined", "n1", node_id="n1", count=3)) == (
        "2027-01-15T08:00:00.250Z info services.x node n1 joined node_id=n1 count=3"
    )


def test_json_is_one_object_with_the_same_facts():
    assert orjson.loads(line(record("joined", node_id="n1"), json=True)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "service": "services.x",
        "event": "joined",
        "node_id": "n1",
    }


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("made", [record("name %s", EVIL), record("named", name_given=EVIL)])
def test_cli_17_a_name_forges_no_line_and_paints_no_terminal(made, json):
    text = line(made, json=json)
    assert text.isprintable()
    assert "bob" in text
    assert "forged" in text


def test_cli_17_a_value_does_not_pass_for_two_fields():
    text = line(record("joined", name_given='x" admin=true'))
    assert text.endswith('name_given="x\\" admin=true"')


def test_a_lone_surrogate_is_written_out():
    assert escaped("a\ud800b") == "a\\ud800b"
    assert line(record("x", name_given="\ud800"), json=True)


@pytest.mark.parametrize(
    "name", ["token", "invite_token", "client_secret", "password", "private_key", "Authorization"]
)
def test_cli_17_fields_named_like_secrets_are_left_out(name):
    for json in (False, True):
        text = line(record("x", **{name: "hunter2"}), json=json)
        assert "hunter2" not in text
        assert name in text


def test_a_trace_stays_on_the_line_of_its_event():
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        text = line(record("failed", error=(type(error), error, error.__traceback__)))
    assert "\n" not in text
    assert "ValueError: first" in text


def test_cli_17_a_flood_of_one_event_is_cut_and_counted():
    flood = FloodFilter()
    # Another value each time is still the same event.
    passed = [flood.filter(record("bad packet from %s", number)) for number in range(100_000)]
    assert sum(passed) == EVENTS_PER_WINDOW
    assert flood.filter(record("another event"))
    after = record("bad packet from %s", "x", created=1_800_000_011.0)
    assert flood.filter(after)
    assert line(after).endswith(f"left_out_count={100_000 - EVENTS_PER_WINDOW}")
    assert flood.filter(again := record("bad packet from %s", "x", created=1_800_000_011.0))
    assert "left_out_count" not in line(again)


def test_a_clock_that_steps_back_does_not_silence_a_log():
    flood = FloodFilter()
    for _ in range(EVENTS_PER_WINDOW + 1):
        flood.filter(record("x"))
    assert not flood.filter(record("x"))
    assert flood.filter(record("x", created=1_700_000_000.0))


def test_the_flood_filter_remembers_a_bounded_number_of_events():
    flood = FloodFilter()
    for number in range(5000):
        flood.filter(record(f"event {number}"))
    assert len(flood._windows) == 1024
