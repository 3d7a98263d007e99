"""What every key provider must do, whatever holds its keys."""

from __future__ import annotations

import threading

import pytest

from services.base.crypto.signatures import verify
from services.kernel.errors import InputError, NotFoundError
from tests.fakes.key_providers import UNLOCK
from tests.fakes.softhsm import PIN

ONE, TWO = "platform/root-1", "domain:0190b3a0-0000-7000-8000-000000000001/root-1"


def test_a_new_key_signs(opened) -> None:
    provider = opened()
    public_key = provider.generate(ONE)
    assert verify(public_key, b"words", provider.sign(ONE, b"words"))
    assert not verify(public_key, b"other", provider.sign(ONE, b"words"))


def test_signing_is_deterministic_as_ed25519_is(opened) -> None:
    provider = opened()
    provider.generate(ONE)
    assert provider.sign(ONE, b"words") == provider.sign(ONE, b"words")


def test_each_handle_has_a_key_of_its_own(opened) -> None:
    provider = opened()
    keys = [provider.generate(handle) for handle in (ONE, TWO)]
    assert keys[0] != keys[1]
    assert verify(keys[1], b"words", provider.sign(TWO, b"words"))


def test_generating_again_makes_no_second_key(opened) -> None:
    provider = opened()
    assert provider.generate(ONE) == provider.generate(ONE) == provider.public_key(ONE)


def test_a_key_outlives_its_process(opened) -> None:
    first = opened()
    public_key, signature = first.generate(ONE), first.sign(ONE, b"words")
    first.close()
    again = opened()
    assert again.public_key(ONE) == public_key
    assert again.sign(ONE, b"words") == signature


def test_sgn_03_an_unknown_handle_is_unknown(opened) -> None:
    provider = opened()
    for call in (provider.public_key, lambda handle: provider.sign(handle, b"words")):
        with pytest.raises(NotFoundError) as caught:
            call(ONE)
        assert caught.value.code == "key_unknown"


def test_it_signs_the_shortest_message_and_the_longest(opened) -> None:
    provider = opened()
    public_key = provider.generate(ONE)
    for data in (b"x", bytes(provider.max_bytes)):
        assert verify(public_key, data, provider.sign(ONE, data))


def test_a_message_that_is_too_long_is_refused_by_its_own_code(opened) -> None:
    provider = opened()
    provider.generate(ONE)
    with pytest.raises(InputError) as caught:
        provider.sign(ONE, bytes(provider.max_bytes + 1))
    assert caught.value.code == "message_too_long"


def test_threads_sign_at_once(opened) -> None:
    first = opened()
    public_key = first.generate(ONE)
    first.close()
    provider, good = opened(), []

    def work(number: int) -> None:
        data = b"%d" % number
        good.append(verify(public_key, data, provider.sign(ONE, data)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 8


def test_it_does_not_print_its_secrets(opened) -> None:
    provider = opened()
    provider.generate(ONE)
    names = ("_open", "_place", "_credentials", "_new", "_old")
    shown = repr(provider) + "".join(repr(vars(provider).get(name)) for name in names)
    for secret in (UNLOCK, PIN, "seed", "secret_access_key"):
        assert secret not in shown


def test_closing_twice_is_closing(opened) -> None:
    provider = opened()
    public_key = provider.generate(ONE)
    provider.close()
    provider.close()
    assert verify(public_key, b"x", opened().sign(ONE, b"x"))
