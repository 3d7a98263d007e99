"""Asks the daemon on its own socket; its problem documents come back as errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from seipd.client.problems import error_of
from seipd.config.paths import Paths
from services.kernel.errors import UnreachableError

if TYPE_CHECKING:
    from seipd.config.model import Settings


def ask(settings: Settings, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 (JSON)
    """Make one request to the daemon of a data root.

    Raises:
        UnreachableError: no daemon answers there.
        SeipdError: what the daemon refused with.
    """
    return asyncio.run(_ask(settings, method, path, body))


async def _ask(settings: Settings, method: str, path: str, body: Any) -> Any:  # noqa: ANN401
    from services.runtime.outbound import HttpClient

    socket = Paths(settings.data_root).socket
    async with HttpClient(unix_socket=str(socket)) as client:
        try:
            answer = await client.fetch(method, f"http://seipd{path}", json=body, timeout_s=60)
        except UnreachableError as error:
            raise UnreachableError(
                f"the daemon of {settings.data_root} can't be reached",
                mend="start it with seipd run, or name its --data-root",
            ) from error
    if answer.status >= 400:
        raise error_of(answer)
    return answer.json()
