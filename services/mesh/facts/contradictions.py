"""Two words on the same state that can't both be right: somebody folds wrongly, or lies. Pure.

The state is a function of the feeds alone. Words that are equal but for the root, of one tick, one
roster, the same feeds, prove by their signatures that one of their authors is broken; not which.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from services.base.ledger.ticks import StateWord, decode_word
from services.kernel import canonical
from services.kernel.errors import InputError, SeipdError
from services.kernel.ids import ServerId, b64u_decode, b64u_encode
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.mesh.facts.envelope import Fact

MAX_ENVELOPES: Final = 1024
MAX_FILE_BYTES: Final = 1 << 20
KEPT_WORDS: Final = 32
_NO_ROOT: Final = bytes(32)


class NoContradictionError(InputError):
    """The words can all be true."""

    default_code = "no_contradiction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """The roots that were told of one state, and by whom; ``envelopes`` hold the signatures."""

    time_ms: int
    told: Mapping[str, tuple[ServerId, ...]]
    envelopes: tuple[bytes, ...]

    @property
    def sentence(self) -> str:
        """Say who says what."""
        sides = (f"{root[:16]} say {', '.join(names)}" for root, names in self.told.items())
        return f"the same feeds give different states: {'; '.join(sides)}"

    def encode(self, mesh_id: str) -> bytes:
        """Return the file that proves it."""
        facts = [b64u_encode(envelope) for envelope in self.envelopes]
        return canonical.encode({"v": 1, "mesh_id": mesh_id, "facts": facts})


class WordWatch:
    """Compares each word with the last ones of all others; bounded for each author."""

    def __init__(self) -> None:
        self._words: dict[str, deque[tuple[StateWord, Fact]]] = {}

    def learn(self, fact: Fact) -> Contradiction | None:
        """Take a fact that was checked before; return what it contradicts, if anything."""
        word = _word_in(fact)
        if word is None:
            return None
        self._words.setdefault(fact.server_id, deque(maxlen=KEPT_WORDS)).append((word, fact))
        state = _state_of(word)
        same = [
            (one, told)
            for words in self._words.values()
            for one, told in words
            if one.time_ms == word.time_ms and _state_of(one) == state
        ]
        return _contradiction(same)


def decode_contradiction(data: bytes) -> tuple[str, Contradiction]:
    """Check a file that should prove a contradiction; return the mesh that it is about, and it.

    Raises:
        InputError: malformed.
        WireError: a word in no envelope.
        BadSignatureError: a word was not signed by the server that it names.
        NoContradictionError: the words can all be true.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError("too long for words on the state")
    value = canonical.decode(data)
    if not isinstance(value, dict) or value.keys() != {"v", "mesh_id", "facts"}:
        raise InputError("not a file of words on the state")
    mesh_id, texts = value["mesh_id"], value["facts"]
    if value["v"] != 1 or not isinstance(mesh_id, str) or not isinstance(texts, list):
        raise InputError("not a file of words on the state")
    if len(texts) > MAX_ENVELOPES:
        raise InputError("too many words on the state")
    try:
        raw_mesh = bytes.fromhex(mesh_id)
    except ValueError as error:
        raise InputError("the mesh id is not hexadecimal") from error
    watch, found = WordWatch(), None
    for text in texts:
        found = watch.learn(open_envelope(b64u_decode(str(text)), raw_mesh)) or found
    if found is None:
        raise NoContradictionError("these words on the state can all be true")
    return mesh_id, found


def _word_in(fact: Fact) -> StateWord | None:
    if fact.kind != STATE:
        return None
    try:
        return decode_word(fact.payload)
    except SeipdError:
        return None


def _state_of(word: StateWord) -> StateWord:
    """Return which state a word is about, whatever it says of it."""
    return msgspec.structs.replace(word, root=_NO_ROOT)


def _contradiction(told: list[tuple[StateWord, Fact]]) -> Contradiction | None:
    sides: dict[bytes, dict[bytes, Fact]] = {}
    for word, fact in told:
        sides.setdefault(word.root, {})[fact.encoded] = fact
    if len(sides) < 2:
        return None
    order = sorted(sides.items(), key=lambda one: (-len(one[1]), one[0]))
    return Contradiction(
        time_ms=told[0][0].time_ms,
        told={
            root.hex(): tuple(sorted({ServerId(fact.server_id) for fact in facts.values()}))
            for root, facts in order
        },
        envelopes=tuple(encoded for _, facts in order for encoded in facts),
    )
