"""The PKCS#11 provider before a token that misbehaves as a real one can't be made to."""

from __future__ import annotations

import threading

import pkcs11
import pytest
from pkcs11 import exceptions as token_errors

from seipd.signerd.providers.pkcs11 import Pkcs11Provider, TokenPlace
from services.base.crypto.signatures import verify
from services.kernel.errors import SeipdError
from tests.fakes.token_library import FakeTokenLibrary

Attribute = pkcs11.Attribute
ROOT = "platform/root-1"
PIN = "271828"


@pytest.fixture
def library():
    return FakeTokenLibrary(pin=PIN)


@pytest.fixture
def open_provider(library):
    made = []

    def open_provider(pin: str = PIN, **options) -> Pkcs11Provider:
        place = TokenPlace(module="fake", token_label="seipd test", pin=pin)
        made.append(Pkcs11Provider(place, load=library.load, **options))
        return made[-1]

    yield open_provider
    library.go_on.set()
    for provider in made:
        provider.close()


def code_of(call, *arguments) -> str:
    with pytest.raises(SeipdError) as caught:
        call(*arguments)
    return caught.value.code


def test_it_opens_one_session_in_one_thread_for_all(open_provider, library) -> None:
    provider = open_provider()
    public_key = provider.public_key(ROOT)
    for _ in range(5):
        assert verify(public_key, b"words", provider.sign(ROOT, b"words"))
    assert (library.sessions_count, library.pins_tried, library.rw) == (1, [PIN], False)
    assert len(library.threads) == 1
    assert threading.current_thread() not in library.threads


@pytest.mark.parametrize("prefix", [b"", b"\x04\x20"])
@pytest.mark.parametrize("params", [bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519"])
def test_the_public_half_is_read_in_each_encoding(open_provider, library, prefix, params) -> None:
    library.public[Attribute.EC_POINT] = prefix + library.key.public_key
    library.public[Attribute.EC_PARAMS] = params
    assert open_provider().public_key(ROOT) == library.key.public_key


@pytest.mark.parametrize(
    "point",
    [b"", bytes(31), bytes(33), b"\x04\x21" + bytes(32), b"\x04\x20" + bytes(33), bytes(57)],
)
def test_any_other_point_is_refused(open_provider, library, point) -> None:
    library.public[Attribute.EC_POINT] = point
    assert code_of(open_provider().public_key, ROOT) == "token_failed"


def test_a_key_of_another_curve_is_refused(open_provider, library) -> None:
    library.public[Attribute.EC_PARAMS] = bytes.fromhex("06032b6571")
    assert code_of(open_provider().public_key, ROOT) == "key_mismatch"


@pytest.mark.parametrize("attribute", [{"SENSITIVE": False}, {"EXTRACTABLE": True}])
def test_a_key_that_the_token_would_give_away_is_refused(open_provider, library, attribute) -> None:
    for name, value in attribute.items():
        library.private[Attribute[name]] = value
    assert code_of(open_provider().public_key, ROOT) == "key_extractable"


def test_sgn_09_a_wrong_pin_is_tried_once_and_never_again(open_provider, library, caplog) -> None:
    provider = open_provider(pin="31415926")
    for call in (provider.public_key, lambda handle: provider.sign(handle, b"words")) * 3:
        assert code_of(call, ROOT) == "pin_wrong"
    assert library.pins_tried == ["31415926"]
    assert "31415926" not in caplog.text


@pytest.mark.parametrize(
    ("flag", "code"), [("USER_PIN_FINAL_TRY", "pin_last_try"), ("USER_PIN_LOCKED", "pin_locked")]
)
def test_sgn_09_a_token_that_the_next_pin_may_lock_is_given_none(
    open_provider, library, flag, code
) -> None:
    library.flags = pkcs11.TokenFlag[flag]
    assert code_of(open_provider().public_key, ROOT) == code
    assert library.pins_tried == []


def test_sgn_09_a_token_that_locks_is_asked_no_more(open_provider, library) -> None:
    library.failures = [token_errors.PinLocked()]
    library.get_token = lambda token_label: library
    provider = open_provider()
    assert code_of(provider.public_key, ROOT) == "pin_locked"
    assert code_of(provider.public_key, ROOT) == "pin_locked"
    assert library.pins_tried == []


@pytest.mark.parametrize(
    "lost",
    [
        "SessionHandleInvalid",
        "SessionClosed",
        "DeviceRemoved",
        "UserNotLoggedIn",
        "KeyHandleInvalid",
    ],
)
def test_sgn_09_a_lost_session_is_opened_anew_and_the_signature_comes(
    open_provider, library, lost
) -> None:
    provider = open_provider()
    public_key = provider.public_key(ROOT)
    library.failures = [getattr(token_errors, lost)()]
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))
    assert library.sessions_count == 2


def test_sgn_09_a_token_that_stays_away_is_looked_for_with_each_signature(
    open_provider, library
) -> None:
    provider = open_provider()
    public_key = provider.public_key(ROOT)
    # The signature, the end of the session, the search for the token.
    pulled = [token_errors.DeviceRemoved(), token_errors.DeviceRemoved()]
    library.failures = [*pulled, token_errors.NoSuchToken()]
    assert code_of(provider.sign, ROOT, b"words") == "token_missing"
    library.failures = [token_errors.NoSuchToken()]
    assert code_of(provider.sign, ROOT, b"words") == "token_missing"
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))


def test_a_login_that_the_library_still_has_is_used(open_provider, library) -> None:
    real, library.open = library.open, None

    def still_logged_in(*, rw, user_pin=None):
        if user_pin is not None:
            raise token_errors.UserAlreadyLoggedIn
        return real(rw=rw)

    library.open = still_logged_in
    assert open_provider().public_key(ROOT) == library.key.public_key


def test_a_token_that_hangs_is_unavailable_within_the_time_and_adds_no_threads(
    open_provider, library
) -> None:
    provider = open_provider(sign_wait_s=0.05)
    public_key = provider.public_key(ROOT)
    library.go_on.clear()
    before = set(threading.enumerate())
    for _ in range(200):
        assert code_of(provider.sign, ROOT, b"words") == "provider_hangs"
    assert set(threading.enumerate()) <= before
    library.go_on.set()
    while True:
        try:
            signature = provider.sign(ROOT, b"words")
        except SeipdError:
            continue
        break
    assert verify(public_key, b"words", signature)


def test_closing_while_the_token_hangs_does_not_hang(open_provider, library) -> None:
    provider = open_provider(sign_wait_s=0.05)
    provider.public_key(ROOT)
    library.go_on.clear()
    assert code_of(provider.sign, ROOT, b"words") == "provider_hangs"
    provider.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (token_errors.MultipleTokensReturned(), "token_ambiguous"),
        (token_errors.NoSuchToken(), "token_missing"),
        (token_errors.GeneralError(), "token_failed"),
    ],
)
def test_what_the_library_says_is_said_by_a_stable_code(
    open_provider, library, error, code
) -> None:
    library.failures = [error]
    assert code_of(open_provider().public_key, ROOT) == code


def test_two_keys_of_one_label_are_refused(open_provider, library) -> None:
    library.get_token = lambda token_label: library
    library.open = lambda *, rw, user_pin: library
    library.failures = [token_errors.MultipleObjectsReturned()]
    assert code_of(open_provider().public_key, ROOT) == "key_ambiguous"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (token_errors.TokenWriteProtected(), "token_read_only"),
        (token_errors.MechanismInvalid(), "token_no_ed25519"),
    ],
)
def test_sgn_09_a_token_that_makes_no_key_says_why(open_provider, library, error, code) -> None:
    def create_domain_parameters(*_arguments, **_options):
        raise error

    library.create_domain_parameters = create_domain_parameters
    assert code_of(open_provider().generate, "platform/root-2") == code


def test_the_pin_is_not_shown() -> None:
    assert PIN not in repr(TokenPlace(module="fake", token_label="seipd test", pin=PIN))
