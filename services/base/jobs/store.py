"""The queue on disk: SQLite in WAL mode, every commit synced before it is answered for.

One connection, one transaction at a time. What changes a job is a pure function of
``transitions``; the row is read, changed and written within one transaction, so that the fence
holds against a second connection, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import aiosqlite

from services.base.jobs import transitions
from services.base.jobs.model import CLOCK_SLACK_MS, LIVE, Job, JobState, QueueFullError
from services.base.storage.files import FILE_MODE, UnsafeFileError
from services.kernel.errors import ConflictError, CorruptError, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from pathlib import Path

    from services.base.jobs.model import JobLimits

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_MS: Final = 2_000
_COLUMNS: Final = tuple(one.name for one in dataclasses.fields(Job))
_SCHEMA: Final = """
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, payload BLOB NOT NULL, key TEXT,
  state TEXT NOT NULL CHECK (state IN ('ready', 'running', 'done', 'dead')),
  attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL,
  run_at_ms INTEGER NOT NULL, lease_until_ms INTEGER NOT NULL, token TEXT NOT NULL,
  created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
  error_code TEXT NOT NULL, error TEXT NOT NULL, progress BLOB NOT NULL, result BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX jobs_key ON jobs (kind, key)
  WHERE key IS NOT NULL AND state IN ('ready', 'running');
CREATE INDEX jobs_due ON jobs (state, run_at_ms);
CREATE INDEX jobs_order ON jobs (created_ms, id);
"""
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608 (names of our own)
_PUT: Final = (
    f"INSERT OR REPLACE INTO jobs ({', '.join(_COLUMNS)})"  # noqa: S608
    f" VALUES ({', '.join('?' * len(_COLUMNS))})"
)


class JobStore:
    """The rows of one ``jobs.db``."""

    def __init__(self, path: Path, limits: JobLimits) -> None:
        self._path = path
        self._limits = limits
        self._db: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Open the file, or make it, and check all of it.

        Raises:
            CorruptError: it is damaged.
            ConflictError: ``schema_newer``: a newer seipd wrote it.
            ConfigError: ``unsafe_file``: a link or a folder.
            StorageError: the disk refused.
        """
        _claim_file(self._path)
        with self._mapped("open"):
            db = await aiosqlite.connect(self._path, isolation_level=None)
        self._db = db
        try:
            with self._mapped("check"):
                await self._prepare(db)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let the file go; may be called twice."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                await db.close()

    async def add(self, job: Job) -> Job:
        """Put a job in the queue; return the live one of its key where there is one.

        Raises:
            QueueFullError: too many wait.
            StorageError: the disk refused; nothing was put in.
        """
        async with self._transaction("put a job into") as db:
            if job.key is not None:
                held = await _one(
                    db,
                    f"{_SELECT} WHERE kind = ? AND key = ? AND state IN ('ready', 'running')",
                    (job.kind, job.key),
                )
                if held is not None:
                    return held
            count = await _number(
                db, "SELECT count(*) FROM jobs WHERE state IN ('ready', 'running')"
            )
            if count >= self._limits.max_live:
                raise QueueFullError(f"{count} jobs wait already")
            await _put(db, job)
        return job

    async def claim(
        self, *, token: str, now_ms: int, lease_ms: Callable[[str], int], busy: Collection[str]
    ) -> Job | None:
        """Begin an attempt at the job that waited longest, of the kinds that are not ``busy``."""
        marks = ", ".join("?" * len(busy))
        async with self._transaction("claim a job of") as db:
            due = await _one(
                db,
                f"{_SELECT} WHERE state = 'ready' AND (run_at_ms <= ? OR changed_ms > ?)"
                f" AND kind NOT IN ({marks}) ORDER BY run_at_ms, id LIMIT 1",
                (now_ms, now_ms + CLOCK_SLACK_MS, *busy),
            )
            if due is None:
                return None
            begun = transitions.claim(due, token=token, now_ms=now_ms, lease_ms=lease_ms(due.kind))
            await _put(db, begun)
            return begun

    async def change(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Change a job by a function of ``transitions``.

        Raises:
            NotFoundError: there is none of this id.
            SeipdError: what the function refuses with.
            StorageError: the disk refused; nothing changed.
        """
        async with self._transaction("change a job of") as db:
            changed = change(await _need(db, job_id))
            await _refuse_twin(db, changed)
            await _put(db, changed)
            return changed

    async def reclaim(
        self, *, lost: Callable[[Job], bool], change: Callable[[Job], Job]
    ) -> list[Job]:
        """Take the jobs that are ``lost`` from their attempts; return them as they are now."""
        async with self._transaction("reclaim jobs of") as db:
            running = await _rows(db, f"{_SELECT} WHERE state = 'running'", ())
            changed = [change(job) for job in running if lost(job)]
            for job in changed:
                await _put(db, job)
            return changed

    async def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is none of this id.
        """
        async with self._transaction("read") as db:
            return await _need(db, job_id)

    async def page(
        self,
        *,
        state: JobState | None,
        kind: str | None,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Job]:
        """Return jobs, the newest first, that are older than ``before`` (creation, id)."""
        wanted: list[str] = []
        values: list[Any] = []
        if state is not None:
            wanted.append("state = ?")
            values.append(state.value)
        if kind is not None:
            wanted.append("kind = ?")
            values.append(kind)
        if before is not None:
            wanted.append("(created_ms, id) < (?, ?)")
            values += before
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
        async with self._transaction("read") as db:
            order = " ORDER BY created_ms DESC, id DESC LIMIT ?"
            return await _rows(db, f"{_SELECT}{where}{order}", (*values, limit))

    async def newest_of(self, kind: str, key: str) -> Job | None:
        """Return the job of a kind and key that was put in last."""
        async with self._transaction("read") as db:
            order = " ORDER BY created_ms DESC, id DESC LIMIT 1"
            return await _one(db, f"{_SELECT} WHERE kind = ? AND key = ?{order}", (kind, key))

    async def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each state."""
        async with self._transaction("read") as db:
            rows = await db.execute_fetchall("SELECT state, count(*) FROM jobs GROUP BY state")
        found = {str(row[0]): int(row[1]) for row in rows}
        return {state.value: found.get(state.value, 0) for state in JobState}

    async def next_ms(self, busy: Collection[str]) -> int | None:
        """Return when the next thing is to be done: a job is due, or a lease runs out."""
        marks = ", ".join("?" * len(busy))
        async with self._transaction("read") as db:
            return await _maybe(
                db,
                "SELECT min(t) FROM (SELECT min(run_at_ms) AS t FROM jobs WHERE state = 'ready'"  # noqa: S608
                f" AND kind NOT IN ({marks}) UNION ALL"
                " SELECT min(lease_until_ms) FROM jobs WHERE state = 'running')",
                tuple(busy),
            )

    async def prune(self, now_ms: int) -> int:
        """Drop what is over for long, and the oldest of what is over in great number."""
        limits, dropped = self._limits, 0
        async with self._transaction("prune") as db:
            for state, keep_ms in (
                (JobState.DONE, limits.keep_done_ms),
                (JobState.DEAD, limits.keep_dead_ms),
            ):
                cursor = await db.execute(
                    "DELETE FROM jobs WHERE state = ? AND (changed_ms < ? OR id IN ("
                    "SELECT id FROM jobs WHERE state = ? ORDER BY changed_ms DESC LIMIT -1"
                    " OFFSET ?))",
                    (state.value, now_ms - keep_ms, state.value, limits.max_over),
                )
                dropped += cursor.rowcount
        return dropped

    async def _prepare(self, db: aiosqlite.Connection) -> None:
        await db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        found = [row[0] for row in await db.execute_fetchall("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise CorruptError(f"the queue of jobs is damaged: {found[0]}", path=self._path.name)
        version = await _number(db, "PRAGMA user_version")
        if version > SCHEMA_VERSION:
            raise ConflictError(
                f"{self._path} has layout {version}, this seipd knows up to {SCHEMA_VERSION}",
                code="schema_newer",
                mend="install the newer seipd again",
            )
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        if version == 0:
            await db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    @contextlib.asynccontextmanager
    async def _transaction(self, what: str) -> AsyncIterator[aiosqlite.Connection]:
        async with self._lock:
            db = self._db
            if db is None:
                raise StorageError("the queue of jobs is closed")
            with self._mapped(what):
                try:
                    # In here: if we are cancelled now, it is begun all the same, and rolled back.
                    await db.execute("BEGIN IMMEDIATE")
                    yield db
                    await db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        await db.execute("ROLLBACK")
                    raise

    @contextlib.contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"cannot {what} {self._path}: {error}", mend="free some space on that disk"
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptError(
                f"the queue of jobs is damaged: {error}", path=self._path.name
            ) from error


def _claim_file(path: Path) -> None:
    """Make the file ours before SQLite does: not a link, and for nobody else to read."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise UnsafeFileError(f"{path} is a link or a folder", mend=f"remove {path}") from error
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


def _job(row: Any) -> Job:  # noqa: ANN401 (a row of SQLite)
    values = dict(zip(_COLUMNS, row, strict=True))
    return Job(**{**values, "state": JobState(values["state"])})


async def _rows(db: aiosqlite.Connection, sql: str, values: tuple[Any, ...]) -> list[Job]:
    return [_job(row) for row in await db.execute_fetchall(sql, values)]


async def _one(db: aiosqlite.Connection, sql: str, values: tuple[Any, ...]) -> Job | None:
    rows = await _rows(db, sql, values)
    return rows[0] if rows else None


async def _need(db: aiosqlite.Connection, job_id: str) -> Job:
    job = await _one(db, f"{_SELECT} WHERE id = ?", (job_id,))
    if job is None:
        raise NotFoundError(f"there is no job {job_id[:64]}")
    return job


async def _refuse_twin(db: aiosqlite.Connection, job: Job) -> None:
    """Refuse that two live jobs have one key, as a revived one and its successor would."""
    if job.key is None or job.state not in LIVE:
        return
    twin = await _one(
        db,
        f"{_SELECT} WHERE kind = ? AND key = ? AND state IN ('ready', 'running') AND id <> ?",
        (job.kind, job.key, job.id),
    )
    if twin is not None:
        raise ConflictError(
            f"job {twin.id} does the same", mend=f"wait for it: seipd jobs show {twin.id}"
        )


async def _put(db: aiosqlite.Connection, job: Job) -> None:
    values = [getattr(job, name) for name in _COLUMNS]
    values[_COLUMNS.index("state")] = job.state.value
    await db.execute(_PUT, values)


async def _maybe(db: aiosqlite.Connection, sql: str, values: tuple[Any, ...] = ()) -> int | None:
    rows = list(await db.execute_fetchall(sql, values))
    value: int | None = rows[0][0] if rows else None
    return value


async def _number(db: aiosqlite.Connection, sql: str) -> int:
    return await _maybe(db, sql) or 0
