"""The command line as a shell sees it: exit statuses, one line for an error, nothing else."""

from __future__ import annotations

import importlib
import inspect
import os
import pty
import subprocess
import sys

import click
import orjson
import pytest

import services.kernel.errors as errors_module
from seipd.agent.main import COMMANDS as SEIP_COMMANDS
from seipd.cli import output
from seipd.cli.exits import exit_status_of
from seipd.cli.group import LazyGroup, run_group
from seipd.cli.main import COMMANDS
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    RateLimitedError,
    SeipdError,
    StartError,
    StorageError,
)

SEIPD = (sys.executable, "-m", "seipd")


def run(*arguments, environment=None, **kwargs):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SEIPD_")}
    return subprocess.run(
        [*SEIPD, *arguments],
        capture_output=True,
        text=True,
        env={**inherited, **(environment or {})},
        **kwargs,
    )


def one_line(text, status_text="error: "):
    assert text.startswith(status_text)
    assert text.count("\n") == 1
    return text


def test_help_imports_no_command_and_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['seipd', '--help']\nfrom seipd.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "a whole mesh in network namespaces" in done.stdout
    loaded = set(done.stderr.split())
    allowed = {"seipd.cli", "seipd.cli.main", "seipd.cli.group", "seipd.cli.exits"}
    assert {name for name in loaded if name.startswith("seipd.")} <= allowed
    heavy = {"aiohttp", "asyncio", "cryptography", "nacl", "rich", "msgspec", "pyroute2", "grpc"}
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("table", "place"),
    [(table, name) for table in (COMMANDS, SEIP_COMMANDS) for name in table],
)
def test_each_command_of_the_table_exists_and_says_what_it_does(table, place):
    module, _, attribute = table[place][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == place
    assert command.help


def test_options_stand_before_or_after_the_command(tmp_path):
    config = tmp_path / "seipd.toml"
    config.write_text('log-level = "error"')
    before = run("--json", "--config", str(config), "config", "show", "--http-port", "7")
    after = run("config", "show", "--http-port=7", f"--config={config}", "--json")
    assert before.stdout == after.stdout
    shown = orjson.loads(after.stdout)
    assert shown["http_port"] == {"value": "7", "source": "--http-port"}
    assert shown["log_level"] == {"value": "error", "source": str(config)}


def test_what_follows_two_dashes_is_not_ours():
    seen = {}

    @click.command()
    @click.argument("words", nargs=-1)
    def take(words):
        seen["words"] = words

    group = LazyGroup(
        commands={"take": ("nowhere:take", "take words")},
        shared=[click.Option(["--json"], is_flag=True)],
        name="x",
        callback=lambda **options: seen.update(options),
    )
    group.get_command = lambda context, name: take
    group.main(["take", "--", "ls", "--json"], standalone_mode=False)
    assert seen == {"words": ("ls", "--json"), "json": False}


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["nonsense"], 2, "nonsense"),
        (["--nonsense"], 2, "--nonsense"),
        (["config", "show", "--http-port"], 2, "argument"),
        (["config", "show", "--http-port", "x"], 2, "--http-port: http_port must be"),
        (["config", "show", "--config", "/nonexistent"], 2, "/nonexistent"),
        (["--data-root", "/nonexistent", "status"], 3, "start it with seipd run"),
        (["completion", "tcsh"], 2, "tcsh"),
    ],
)
def test_an_error_is_one_line_with_its_exit_status(arguments, status, word):
    done = run(*arguments)
    assert done.returncode == status
    assert word in one_line(done.stderr)
    assert done.stdout == ""


def test_an_interrupt_ends_with_130(capsys):
    assert run_group(raising(KeyboardInterrupt()), "x") == 130
    assert capsys.readouterr().err.strip() == "error: interrupted"


def test_each_category_of_errors_has_its_exit_status():
    kinds = {
        kind for _, kind in inspect.getmembers(errors_module, inspect.isclass)
        if issubclass(kind, SeipdError)
    }  # fmt: skip
    extra = {
        CorruptError: {"path": "p"}, StartError: {"service": "s"},
        RateLimitedError: {"retry_after_s": 1},
    }  # fmt: skip
    statuses = {kind.__name__: exit_status_of(kind("x", **extra.get(kind, {}))) for kind in kinds}
    assert statuses == {
        "SeipdError": 1, "WireError": 1, "CorruptError": 1, "StartError": 1,
        "ConfigError": 2, "InputError": 2, "TooLargeError": 2,
        "UnreachableError": 3,
        "ForbiddenError": 4, "UnauthenticatedError": 4,
        "NotFoundError": 5,
        "ConflictError": 6, "RejectedError": 6,
        "UnavailableError": 7, "StorageError": 7, "RateLimitedError": 7,
    }  # fmt: skip


def raising(error):
    @click.command()
    def fails():
        raise error

    group = click.Group("x")
    group.add_command(fails)
    group.main = lambda **kwargs: click.Group.main(group, ["fails"], **kwargs)
    return group


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NotFoundError("no node x", mend="seipd tree ls"), 5, "no node x — seipd tree ls"),
        (ConflictError("taken"), 6, "taken"),
        (StorageError("disk full"), 7, "disk full"),
        (NotFoundError("no \x1b[31m\nnode"), 5, "no  [31m node"),
        (OSError(28, "No space left on device", "f"), 1, "f: No space left on device — "),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied — "),
        (ZeroDivisionError("a\nb"), 1, "ZeroDivisionError: a b — "),
        (click.UsageError("wrong"), 2, "wrong"),
    ],
)
def test_nobody_is_shown_a_traceback(capsys, error, status, line):
    assert run_group(raising(error), "x") == status
    shown = capsys.readouterr()
    assert one_line(shown.err).startswith(f"error: {line}")
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "arguments", [["config", "show"], ["config", "show", "--json"], ["--help"]]
)
def test_cli_08_an_answer_that_can_not_be_written_is_not_exit_0(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        done = subprocess.run([*SEIPD, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left" in one_line(done.stderr)


@pytest.mark.parametrize(
    "arguments", [["config", "show"], ["config", "show", "--json"], ["--help"]]
)
def test_cli_08_a_reader_that_went_away_is_left_in_peace(arguments):
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as gone:  # noqa: PTH123 (a descriptor)
        done = subprocess.run([*SEIPD, *arguments], stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", [1, 2])
def test_cli_08_a_closed_output_is_no_fault_of_the_program(closed):
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", *SEIPD, "config", "show"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_cli_08_a_narrow_terminal_and_a_plain_locale_do_no_harm():
    environment = {"LANG": "C", "LC_ALL": "C", "COLUMNS": "20", "PYTHONUTF8": "0"}
    done = run("config", "show", environment=environment)
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["wireguard_interface", "seip0", "default"] in rows
    failed = run("--data-root", "/nonexistent", "status", environment=environment)
    assert failed.returncode == 3
    one_line(failed.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell):
    script = run("completion", shell).stdout
    assert "_SEIPD_COMPLETE" in script
    assert "seipd" in script


@pytest.mark.parametrize(
    ("words", "found"), [("seipd led", ["ledger"]), ("seipd ledger ver", ["verify"])]
)
def test_completion_knows_the_commands(words, found):
    done = subprocess.run(
        [sys.executable, "-c", "from seipd.cli.main import main; main()"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_SEIPD_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
    )
    assert done.stdout.splitlines() == [f"plain,{one}" for one in found]


def on_terminal(code):
    """Run Python with standard error on a terminal; return what was drawn."""
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    drawn = b""
    try:
        while data := os.read(master, 4096):
            drawn += data
    except OSError:
        pass
    os.close(master)
    return drawn.decode()


def test_progress_is_shown_on_a_terminal_only_and_only_if_it_takes_its_time(capsys):
    code = (
        "from seipd.cli import output\nimport threading\noutput.SPINNER_AFTER_S = {after}\n"
        "with output.progress('making keys'):\n    threading.Event().wait({wait})"
    )
    assert "making keys" in on_terminal(code.format(after=0.01, wait=0.5))
    assert on_terminal(code.format(after=60, wait=0.01)) == ""
    with output.progress("making keys"):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [(), ("dns",), ("dns", "split"), ("jobs",)])
def test_without_a_command_the_help_is_shown_as_it_is_meant_to_be_read(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['seipd', *words])}")
    assert "Commands:" in lines


@pytest.mark.parametrize("ttl", ["0", "86401", "-1"])
def test_a_ttl_out_of_range_is_told_in_words(ttl):
    done = run("dns", "set", "www", "A", "192.0.2.1", "--ttl", ttl)
    assert done.returncode == 2
    assert "1<=x<=86400" in done.stderr
