"""A small, strict reader of the XML that routers send. Pure.

Expat does the work, as everywhere in Python; what makes XML dangerous (documents types, and with
them entities that grow or lead elsewhere) ends it here with the first byte of such a thing, as
defusedxml does, and what is long, deep or of many parts does, too. Names lose their prefix: routers
choose those freely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from xml.parsers import expat

from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 1 << 16
MAX_DEPTH: Final = 24
MAX_ELEMENTS: Final = 2_000


@dataclass(slots=True, kw_only=True)
class Element:
    """One element: its own text, and what stands in it."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find_all(self, name: str) -> Iterator[Element]:
        """Give every element of a name, wherever it stands below."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.find_all(name)

    def value(self, name: str) -> str:
        """Return the text of the first element of a name; nothing where there is none."""
        return next((found.text.strip() for found in self.find_all(name)), "")


class _Reader:
    def __init__(self) -> None:
        self.open = [Element(name="")]
        self.count = 0

    def start(self, name: str, _: dict[str, str]) -> None:
        self.count += 1
        if len(self.open) > MAX_DEPTH or self.count > MAX_ELEMENTS:
            raise WireError("XML: too deep or too many elements")
        element = Element(name=name.rpartition(":")[2])
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, _: str) -> None:
        self.open.pop()

    def text(self, data: str) -> None:
        self.open[-1].text += data


def read(data: bytes) -> Element:
    """Return the root, as the one child of a nameless element.

    Raises:
        WireError: it is malformed, over a limit, or has a document type.
    """
    if len(data) > MAX_BYTES:
        raise WireError("XML: too long")
    reader, parser = _Reader(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise WireError(f"XML: {error}") from error
    return reader.open[0]


def _refuse(*_: Any) -> int:  # noqa: ANN401 (expat's own signature)
    raise WireError("XML: it has a document type")
