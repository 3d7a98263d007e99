"""The operator's commands and the daemon: what it refuses with comes out as the same error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from seipd.api.errors import problem_of
from seipd.cli.exits import exit_status_of
from seipd.client.local import ask
from seipd.config.model import Settings
from services.kernel.canonical import decode, encode
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RateLimitedError,
    RejectedError,
    SeipdError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)


@pytest.fixture
async def daemon(tmp_path):
    """What answers on the daemon's socket; a test says how."""

    class Daemon:
        settings = Settings(data_root=tmp_path)
        answer = staticmethod(lambda request, body: web.json_response({}))

        async def ask(self, *arguments):
            return await asyncio.to_thread(ask, self.settings, *arguments)

    made = Daemon()

    async def handle(request):
        return made.answer(request, await request.read())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    (tmp_path / "run").mkdir()
    await web.UnixSite(runner, str(tmp_path / "run" / "seipd.sock")).start()
    yield made
    await runner.cleanup()


async def test_a_question_reaches_the_daemon_and_its_answer_comes_back(daemon):
    def answer(request, body):
        value = {"path": request.path_qs, "method": request.method, "body": decode(body)}
        return web.Response(body=encode(value))

    daemon.answer = answer
    assert await daemon.ask("POST", "/api/tree/node?x=1", {"name": "ü"}) == {
        "path": "/api/tree/node?x=1",
        "method": "POST",
        "body": {"name": "ü"},
    }


async def test_what_a_person_typed_into_a_path_arrives_as_it_was_typed(daemon):
    daemon.answer = lambda request, _: web.json_response(request.path)
    typed = "no such nöde\t#<>"
    assert await daemon.ask("GET", f"/api/tree/node/{typed}") == f"/api/tree/node/{typed}"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("bad name", code="bad_name", mend="a-z"), 2),
        (UnauthenticatedError("who?"), 4),
        (ForbiddenError("not yours"), 4),
        (NotFoundError("no such node"), 5),
        (ConflictError("taken", code="name_in_use"), 6),
        (RejectedError("void", code="rejected_unauthorised"), 4),
        (RejectedError("void", code="rejected_late"), 6),
        (UnavailableError("no signer", code="signer_unavailable", mend="start it"), 7),
        (RateLimitedError("slow down", retry_after_s=3), 7),
    ],
)
async def test_an_error_keeps_its_words_code_mend_and_exit_status(daemon, error, status):
    daemon.answer = lambda request, body: problem_of(error, request_id="r")
    with pytest.raises(SeipdError) as caught:
        await daemon.ask("GET", "/")
    told = caught.value
    assert (str(told), told.code, told.mend) == (str(error), error.code, error.mend)
    assert exit_status_of(told) == status


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"code":7,"detail":[]}'])
async def test_a_refusal_that_is_no_problem_document_is_told_by_its_status(daemon, body):
    daemon.answer = lambda request, _: web.Response(status=503, body=body)
    with pytest.raises(UnavailableError) as caught:
        await daemon.ask("GET", "/")
    assert exit_status_of(caught.value) == 7
    assert str(caught.value)


def test_no_daemon_is_told_with_the_way_to_start_it(tmp_path):
    settings = Settings(data_root=tmp_path / "none")
    with pytest.raises(UnreachableError) as caught:
        ask(settings, "GET", "/")
    assert exit_status_of(caught.value) == 3
    assert str(tmp_path / "none") in str(caught.value)
    assert "seipd run" in caught.value.mend


def test_a_socket_left_by_a_daemon_that_died_is_no_daemon(tmp_path):
    import socket

    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(Path(tmp_path / "run" / "seipd.sock")))
    with pytest.raises(UnreachableError):
        ask(Settings(data_root=tmp_path), "GET", "/")


def test_a_daemon_that_ends_in_the_middle_of_its_answer_is_told(tmp_path):
    import socket
    import threading

    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(tmp_path / "run" / "seipd.sock")))
        listener.listen()

        def cut_short() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}")

        cutting = threading.Thread(target=cut_short)
        cutting.start()
        with pytest.raises(UnreachableError):
            ask(Settings(data_root=tmp_path), "GET", "/")
        cutting.join()


async def test_whoever_may_not_reach_the_daemon_is_told_that_and_not_to_start_it(
    daemon, monkeypatch
):
    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", closed)
    with pytest.raises(ForbiddenError) as refused:
        await daemon.ask("GET", "/api/status")
    assert (refused.value.code, exit_status_of(refused.value)) == ("not_permitted", 4)
    assert "sudo" in refused.value.mend
