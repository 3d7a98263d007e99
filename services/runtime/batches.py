r"""A UDP socket that takes many datagrams by one call, and answers them by one: recvmmsg, sendmmsg.

For a server whose every datagram is answered at once or not at all. A call of the kernel for each
datagram, and an address made into text and back, cost as much as all that is done with it. Here
senders stay as the kernel told them, and an answer goes to where its question lay.

    incoming   64 headers: sender, octets        one recvmmsg
    outgoing   64 headers: the same senders, the answers' octets        one sendmmsg for each run
               of datagrams that are answered

Memory is taken once. What the kernel does not take is dropped and counted, as with ``UdpSocket``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from typing_extensions import override

from services.runtime.udp import BATCH, MAX_DATAGRAM_BYTES, UdpSocket

OnQuestion = Callable[[bytes, bytes], bytes | None]
"""A datagram and the packed address of its sender to its answer."""

_MSG_DONTWAIT: Final = 0x40
_HOST_AT: Final = {socket.AF_INET: (4, 8, 16), socket.AF_INET6: (8, 24, 28)}
"""Where the address stands in a ``sockaddr`` of its family, and how long that is."""


class _Slice(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("slices", ctypes.c_void_p),
        ("slice_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint32))


_HEADER_BYTES: Final = ctypes.sizeof(_Header)
_LENGTH_AT: Final = _Header.length.offset // 4
_NEXT_LENGTH: Final = _HEADER_BYTES // 4


class _Buffers:
    """The memory of one socket, as the kernel wants it and as Python reads it."""

    def __init__(self, family: int) -> None:
        self.host_at, self.host_end, self.name_bytes = _HOST_AT[socket.AddressFamily(family)]
        # Any: a slice of such an array is bytes, which typeshed does not know.
        self.names: Any = (ctypes.c_char * (BATCH * self.name_bytes))()
        self.questions: Any = (ctypes.c_char * (BATCH * MAX_DATAGRAM_BYTES))()
        self._written = (ctypes.c_char * (BATCH * MAX_DATAGRAM_BYTES))()
        self._in, self._out = (_Slice * BATCH)(), (_Slice * BATCH)()
        self.incoming = self._headers(self._in, self.questions)
        self.outgoing = self._headers(self._out, self._written)
        self.answers = memoryview(self._written).cast("B")
        self.question_lengths = memoryview(self.incoming).cast("B").cast("I")
        # Of each slice the second word.
        self.answer_lengths = memoryview(self._out).cast("B").cast("L")

    def _headers(
        self, slices: ctypes.Array[_Slice], octets: ctypes.Array[ctypes.c_char]
    ) -> ctypes.Array[_Header]:
        headers = (_Header * BATCH)()
        for number, (header, one) in enumerate(zip(headers, slices, strict=True)):
            one.base = ctypes.addressof(octets) + number * MAX_DATAGRAM_BYTES
            one.length = MAX_DATAGRAM_BYTES
            message = header.message
            message.name = ctypes.addressof(self.names) + number * self.name_bytes
            message.name_length = self.name_bytes
            message.slices, message.slice_count = ctypes.addressof(one), 1
        return headers


class AnsweringSocket(UdpSocket):
    """A bound socket whose datagrams are answered by one callback."""

    def __init__(self, on_question: OnQuestion) -> None:
        super().__init__(lambda data, address: None)
        self.on_question = on_question
        libc = ctypes.CDLL(None, use_errno=True)
        self._receive, self._transmit = libc.recvmmsg, libc.sendmmsg
        self._buffers: _Buffers | None = None

    @override
    def _prepare(self, sock: socket.socket) -> None:
        self._buffers = _Buffers(sock.family)

    @override
    def _drain(self) -> None:
        sock, buffers = self._socket, self._buffers
        if sock is None:
            return
        if buffers is None:
            self._drain_singly(sock)
            return
        count = self._receive(sock.fileno(), buffers.incoming, BATCH, _MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSYS, errno.EPERM):
                # A sandbox that does not know these calls, or forbids them.
                self._buffers = None
            self._failed(number)
            return
        begin = 0
        for end in self._gaps(buffers, count):
            if end > begin:
                self._send(sock.fileno(), buffers, begin, end)
            begin = end + 1

    def _drain_singly(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, address = sock.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
                return
            host = socket.inet_pton(sock.family, address[0].partition("%")[0])
            answer = self.on_question(data, host)
            if answer is not None:
                self.send(answer, address)

    def _gaps(self, buffers: _Buffers, count: int) -> list[int]:
        """Answer; return the places that have no answer, the one after the last among them."""
        gaps, answer_to = [], self.on_question
        questions, lengths, answers = buffers.questions, buffers.question_lengths, buffers.answers
        names, answer_lengths = buffers.names, buffers.answer_lengths
        host, host_end, name_bytes = buffers.host_at, buffers.host_end, buffers.name_bytes
        at, length_at = 0, _LENGTH_AT
        for number in range(count):
            data = questions[at : at + lengths[length_at]]
            answer = answer_to(data, names[host:host_end])
            if answer is None:
                gaps.append(number)
            elif (size := len(answer)) > MAX_DATAGRAM_BYTES:
                gaps.append(number)
                self.dropped_count += 1
            else:
                answers[at : at + size] = answer
                answer_lengths[2 * number + 1] = size
            at, length_at = at + MAX_DATAGRAM_BYTES, length_at + _NEXT_LENGTH
            host, host_end = host + name_bytes, host_end + name_bytes
        gaps.append(count)
        return gaps

    def _send(self, descriptor: int, buffers: _Buffers, begin: int, end: int) -> None:
        while begin < end:
            first = ctypes.byref(buffers.outgoing, begin * _HEADER_BYTES)
            sent = self._transmit(descriptor, first, end - begin, _MSG_DONTWAIT)
            if sent > 0:
                begin += sent
                continue
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.ENOBUFS):
                self.dropped_count += end - begin
                return
            # The first of them can't be sent; the others may.
            self.failed_count += 1
            self._failed(number)
            begin += 1

    def _failed(self, number: int) -> None:
        if number not in (errno.EAGAIN, errno.EINTR):
            self._complain(OSError(number, os.strerror(number)))
