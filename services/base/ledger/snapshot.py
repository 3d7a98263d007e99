"""The signed state file: where a start continues instead of folding from the first record.

    header, canonical JSON, one line
    signature of the header by this server, base64url, one line
    body: the packed leaves of the Merkle map

The header names the settled size of every feed, the roster's records, the root of the map and the
SHA-256 of the body. It is signed with the purpose ``seipd/state/v1``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from services.base.ledger.standing import FeedPoint
from services.base.ledger.state import State
from services.kernel import canonical
from services.kernel.errors import CorruptError, SeipdError
from services.kernel.ids import (
    MeshId,
    ServerId,
    b64u_decode,
    b64u_encode,
    parse_server_id,
)
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from services.base.ledger.feedrules import Verify
    from services.kernel.records import Record

PURPOSE_STATE = b"seipd/state/v1\0"
STATE_VERSION = 1
STATE_PATH = "ledger/state"
MAX_HEADER_BYTES = 64 << 20
MAX_SIGNATURE_BYTES = 128
PIECE_BYTES = 1 << 20
MEND = "remove the file: the next start folds the ledger from its first record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at the settled point, and where each feed stood then."""

    state: State
    charter_records: tuple[Record, ...]
    points: dict[ServerId, FeedPoint]
    horizon_ms: int


class _PointWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    roster: int
    hlc: str
    settled_ms: int


class _HeaderWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    mesh_id: str
    count: int
    root: str
    body_sha256: str
    feeds: dict[str, _PointWire]
    horizon_ms: int
    charter: list[dict[str, Any]]


def encode_snapshot(
    snapshot: Snapshot, *, mesh_id: MeshId, sign: Callable[[bytes], bytes]
) -> bytes:
    """Return the bytes of the state file."""
    body = b"".join(snapshot.state.packed())
    header = canonical.encode(
        {
            "v": STATE_VERSION,
            "mesh_id": mesh_id,
            "count": snapshot.state.count,
            "root": snapshot.state.root().hex(),
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "feeds": points_value(snapshot.points),
            "horizon_ms": snapshot.horizon_ms,
            "charter": [record.value() for record in snapshot.charter_records],
        }
    )
    signature = sign(PURPOSE_STATE + bytes.fromhex(mesh_id) + header)
    return header + b"\n" + b64u_encode(signature).encode() + b"\n" + body


def points_value(points: Mapping[ServerId, FeedPoint]) -> dict[str, Any]:
    """Return the JSON object of where feeds stand."""
    return {
        name: {
            "size": point.size,
            "roster": point.roster_number,
            "hlc": f"{point.settled_hlc:016x}",
            "settled_ms": point.settled_ms,
        }
        for name, point in points.items()
    }


def decode_snapshot(file: BinaryIO, *, mesh_id: MeshId, key: bytes, verify: Verify) -> Snapshot:
    """Check a state file that ``key`` signed and load it, piece by piece.

    Raises:
        CorruptError: damaged, of another mesh, or not signed by this key.
    """
    try:
        header = file.readline(MAX_HEADER_BYTES).removesuffix(b"\n")
        signature = file.readline(MAX_SIGNATURE_BYTES).removesuffix(b"\n")
        signed = PURPOSE_STATE + bytes.fromhex(mesh_id) + header
        if not verify(key, signed, b64u_decode(signature.decode("ascii"))):
            raise CorruptError("the state file's signature is wrong", path=STATE_PATH, mend=MEND)
        canonical.check_depth(header)
        wire = msgspec.json.decode(header, type=_HeaderWire)
        if wire.v != STATE_VERSION or wire.mesh_id != mesh_id:
            raise CorruptError("the state file is of another kind", path=STATE_PATH, mend=MEND)
        state = State()
        digest = hashlib.sha256()
        state.load(_pieces(file, digest.update), wire.count)
        if digest.hexdigest() != wire.body_sha256:
            raise CorruptError("the state file's body is damaged", path=STATE_PATH, mend=MEND)
        points = {
            parse_server_id(name): FeedPoint(
                size=point.size,
                roster_number=point.roster,
                settled_hlc=int(point.hlc, 16),
                settled_ms=point.settled_ms,
            )
            for name, point in wire.feeds.items()
        }
        charter = tuple(record_from_value(value) for value in wire.charter)
    except CorruptError as error:
        raise CorruptError(str(error), path=STATE_PATH, mend=MEND) from error
    except (SeipdError, ValueError, IndexError, msgspec.MsgspecError) as error:
        raise CorruptError(f"the state file: {error}", path=STATE_PATH, mend=MEND) from error
    return Snapshot(state=state, charter_records=charter, points=points, horizon_ms=wire.horizon_ms)


def _pieces(file: BinaryIO, update: Callable[[bytes], None]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        update(piece)
        yield piece
