from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SignRequest(_message.Message):
    __slots__ = ("canonical_bytes", "scope", "key_id", "more")
    CANONICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    canonical_bytes: bytes
    scope: str
    key_id: str
    more: _containers.RepeatedCompositeFieldContainer[SignRequest]
    def __init__(self, canonical_bytes: _Optional[bytes] = ..., scope: _Optional[str] = ..., key_id: _Optional[str] = ..., more: _Optional[_Iterable[_Union[SignRequest, _Mapping]]] = ...) -> None: ...

class SignReply(_message.Message):
    __slots__ = ("signature", "key_id", "more", "refusal")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    key_id: str
    more: _containers.RepeatedCompositeFieldContainer[SignReply]
    refusal: str
    def __init__(self, signature: _Optional[bytes] = ..., key_id: _Optional[str] = ..., more: _Optional[_Iterable[_Union[SignReply, _Mapping]]] = ..., refusal: _Optional[str] = ...) -> None: ...

class PublicKeyRequest(_message.Message):
    __slots__ = ("scope", "key_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    key_id: str
    def __init__(self, scope: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class PublicKeyReply(_message.Message):
    __slots__ = ("public_key", "key_id", "state", "valid_from_ms", "valid_until_ms")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_MS_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    key_id: str
    state: str
    valid_from_ms: int
    valid_until_ms: int
    def __init__(self, public_key: _Optional[bytes] = ..., key_id: _Optional[str] = ..., state: _Optional[str] = ..., valid_from_ms: _Optional[int] = ..., valid_until_ms: _Optional[int] = ...) -> None: ...
