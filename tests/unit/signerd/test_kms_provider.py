"""The KMS provider against the fake service: what fails, what is asked again, what is believed."""

from __future__ import annotations

import random
import threading

import pytest

from seipd.signerd.core import KeyRow, KeyState
from seipd.signerd.providers.kms import Deadlines
from seipd.signerd.providers.kms_api import MAX_MESSAGE_BYTES, alias_of
from seipd.signerd.state import SignerState
from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.author import Author
from services.kernel.certificates import MAX_SLICES, ServerCertificate
from services.kernel.errors import NotFoundError, SeipdError
from services.kernel.ids import MeshId
from services.runtime.clock import SystemClock
from tests.fakes.fake_kms import FakeFaultError, FakeKms, open_kms

ROOT = "platform/root-1"
MESH_ID = MeshId("0" * 64)
SHORT = Deadlines(sign_s=0.4, open_s=0.4, generate_s=0.4, attempt_s=0.15)
THROTTLED = FakeFaultError("ThrottlingException")
BROKEN = FakeFaultError("KMSInternalException", 500)


class NoWait(random.Random):
    """Jitter that is none: what is asked again is asked at once."""

    def uniform(self, a: float, _b: float) -> float:
        return a


class Skewed(SystemClock):
    """A clock that goes ten minutes wrong."""

    def now_ms(self) -> int:
        return super().now_ms() + 600_000


@pytest.fixture
def kms():
    kms = FakeKms()
    yield kms
    kms.close()


@pytest.fixture
def open_provider(kms, tmp_path):
    made = []

    def open_provider(**options):
        options.setdefault("jitter", NoWait())
        made.append(open_kms(kms, tmp_path / "credentials", **options))
        return made[-1]

    yield open_provider
    for provider in made:
        provider.close()


@pytest.fixture
def provider(open_provider):
    return open_provider()


def error_of(call, *arguments) -> SeipdError:
    with pytest.raises(SeipdError) as caught:
        call(*arguments)
    return caught.value


def test_a_key_is_made_once_and_named_by_its_alias(kms, provider, open_provider) -> None:
    public_key = provider.generate(ROOT)
    assert open_provider().generate(ROOT) == public_key
    assert list(kms.aliases) == ["alias/seipd/platform/root-1"]
    assert [key.description for key in kms.keys.values()] == ["seipd-signer platform/root-1"]
    assert kms.asked["CreateKey"] == 1


def test_an_unknown_key_is_unknown_and_nothing_is_made(kms, provider) -> None:
    with pytest.raises(NotFoundError, match="alias/seipd/platform/root-1 in eu-central-1"):
        provider.public_key(ROOT)
    assert kms.keys == {}


@pytest.mark.parametrize("fault", [THROTTLED, BROKEN, "drop", FakeFaultError("x", 503)])
def test_sgn_10_what_passes_is_asked_again(kms, provider, fault) -> None:
    public_key = provider.generate(ROOT)
    kms.faults.extend([fault] * 3)
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))
    assert kms.asked["Sign"] == 4


@pytest.mark.parametrize("fault", [THROTTLED, BROKEN, "drop"])
def test_sgn_10_asking_again_has_an_end(kms, provider, fault) -> None:
    provider.generate(ROOT)
    kms.faults.extend([fault] * 100)
    assert error_of(provider.sign, ROOT, b"words").code == "kms_unavailable"
    assert kms.asked["Sign"] == 5


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_sgn_10_a_service_that_does_not_answer_is_given_up_in_time(
    kms, open_provider, fault
) -> None:
    open_provider().generate(ROOT)
    provider = open_provider(deadlines=SHORT)
    provider.public_key(ROOT)
    kms.faults.extend([fault] * 100)
    before = threading.active_count()
    error = error_of(provider.sign, ROOT, b"words")
    assert error.code == "kms_unavailable"
    assert 1 <= kms.asked["Sign"] <= 5
    kms.faults.clear()
    assert provider.sign(ROOT, b"words")
    assert threading.active_count() <= before + 4 + kms.asked["Sign"]


def test_sgn_10_what_is_refused_is_not_asked_again(kms, provider) -> None:
    provider.generate(ROOT)
    for kind in ("AccessDeniedException", "DisabledException", "KMSInvalidStateException"):
        kms.asked.clear()
        kms.faults.append(FakeFaultError(kind, message="User: arn:aws:iam::1 is not authorized"))
        error = error_of(provider.sign, ROOT, b"words")
        assert (error.code, kms.asked["Sign"]) == ("kms_refused", 1)
        assert f"{kind} User: arn:aws:iam::1 is not authorized" in str(error)


def test_sgn_10_a_signature_of_another_key_never_leaves(kms, provider) -> None:
    provider.generate(ROOT)
    kms.imposter = SigningKey(bytes(32))
    assert error_of(provider.sign, ROOT, b"words").code == "kms_wrong_signature"


@pytest.mark.parametrize(
    "change",
    [
        {"KeyId": "arn:aws:kms:eu-central-1:1:key/2"},
        {"SigningAlgorithm": "ED25519_PH_SHA_512"},
        {"Signature": "AAAA"},
        {"Signature": "no base64!"},
        {"Signature": 7},
        {"Signature": None},
    ],
)
def test_sgn_10_an_answer_of_another_form_is_refused(kms, provider, change) -> None:
    provider.generate(ROOT)
    kms.alter_reply = lambda _action, reply: reply | change
    assert error_of(provider.sign, ROOT, b"words").code == "kms_refused"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"KeySpec": "ECC_NIST_P256"}, "key_mismatch"),
        ({"KeyUsage": "KEY_AGREEMENT"}, "key_mismatch"),
        ({"SigningAlgorithms": ["ED25519_PH_SHA_512"]}, "key_mismatch"),
        ({"PublicKey": "AAAA"}, "kms_refused"),
        ({"PublicKey": "MCowBQYDK2VuAyEA" + "A" * 43 + "="}, "kms_refused"),
    ],
)
def test_a_key_of_another_kind_is_refused(kms, provider, open_provider, change, code) -> None:
    provider.generate(ROOT)
    kms.alter_reply = lambda _action, reply: reply | change
    assert error_of(open_provider().public_key, ROOT).code == code


def test_an_alias_that_is_pointed_elsewhere_rotates_nothing(kms, provider, tmp_path) -> None:
    public_key = provider.generate(ROOT)
    other = provider.generate("platform/root-2")
    kms.aliases[alias_of("seipd/", ROOT)] = kms.aliases[alias_of("seipd/", "platform/root-2")]
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))
    provider.close()

    again = SignerState(tmp_path / "signer", open_kms(kms, tmp_path / "credentials"))
    again.open()
    row = KeyRow(
        scope="platform",
        key_id="root-1",
        state=KeyState.ACTIVE,
        public_key=public_key,
        purposes=("seipd/record/v1",),
        handle=ROOT,
    )
    again._save(again.table().with_key(row))
    assert again.provider.public_key(ROOT) == other
    assert error_of(again.check).code == "key_mismatch"
    again.close()


def test_a_rotation_is_a_new_key_and_a_new_alias(kms, provider) -> None:
    first, second = provider.generate(ROOT), provider.generate("platform/root-2")
    assert first != second
    assert len(kms.keys) == len(kms.aliases) == 2
    for handle, public_key in ((ROOT, first), ("platform/root-2", second)):
        assert verify(public_key, b"words", provider.sign(handle, b"words"))


def test_creating_is_not_done_twice_where_the_first_may_have_been_done(kms, provider) -> None:
    kms.faults.extend([FakeFaultError("NotFoundException"), "after"])
    assert error_of(provider.generate, ROOT).code == "kms_unavailable"
    assert (kms.asked["CreateKey"], len(kms.keys)) == (1, 1)


def test_creating_is_asked_again_where_it_was_not_done(kms, provider) -> None:
    kms.faults.extend([FakeFaultError("NotFoundException"), THROTTLED, THROTTLED])
    assert provider.generate(ROOT)
    assert (kms.asked["CreateKey"], len(kms.keys)) == (3, 1)


def test_an_alias_whose_answer_was_lost_is_this_key_s(kms, provider) -> None:
    kms.faults.extend([FakeFaultError("NotFoundException"), None, "after"])
    public_key = provider.generate(ROOT)
    assert kms.refused[-1] == "AlreadyExistsException"
    assert [key.state for key in kms.keys.values()] == ["Enabled"]
    assert verify(public_key, b"words", provider.sign(ROOT, b"words"))


def test_a_key_that_gets_no_alias_is_not_left_behind(kms, provider) -> None:
    denied = FakeFaultError("AccessDeniedException")
    kms.faults.extend([FakeFaultError("NotFoundException"), None, denied])
    assert error_of(provider.generate, ROOT).code == "kms_refused"
    assert [key.state for key in kms.keys.values()] == ["PendingDeletion"]
    assert provider.generate(ROOT)


def test_of_two_that_make_one_key_both_have_the_first(kms, provider, open_provider) -> None:
    first = open_provider().generate(ROOT)
    kms.faults.append(FakeFaultError("NotFoundException"))
    assert provider.generate(ROOT) == first
    assert sorted(key.state for key in kms.keys.values()) == ["Enabled", "PendingDeletion"]


def test_a_new_key_that_is_not_seen_everywhere_yet_is_waited_for(kms, provider) -> None:
    unseen = FakeFaultError("NotFoundException")
    kms.faults.extend([unseen, None, None, unseen, unseen])
    assert provider.generate(ROOT)


def test_an_access_key_that_ran_out_is_read_anew(kms, provider, tmp_path) -> None:
    kms.session_token = "first/token=="
    (tmp_path / "credentials").write_text(kms.credentials_file())
    provider.generate(ROOT)
    kms.session_token = "second/token=="
    assert error_of(provider.sign, ROOT, b"words").code == "kms_refused"
    (tmp_path / "credentials").write_text(kms.credentials_file())
    assert provider.sign(ROOT, b"words")


def test_a_wrong_access_key_is_said_and_never_shown(kms, provider, tmp_path, caplog) -> None:
    kms.session_token = "a/session/token=="
    file = tmp_path / "credentials"
    file.write_text(kms.credentials_file().replace(kms.secret, "another secret"))
    error = error_of(provider.generate, ROOT)
    assert error.code == "kms_refused"
    assert "secret access key" in error.mend
    for secret in (kms.session_token, kms.secret, "another secret"):
        assert secret not in f"{error}{caplog.text}"


def test_a_clock_that_is_wrong_is_named_as_what_to_look_at(open_provider) -> None:
    assert "this machine's clock" in error_of(open_provider(clock=Skewed()).generate, ROOT).mend


def test_nobody_listening_is_unavailable_and_asked_again(kms, provider) -> None:
    provider.generate(ROOT)
    kms.close()
    error = error_of(provider.sign, ROOT, b"words")
    assert error.code == "kms_unavailable"
    assert "can't be reached" in str(error)


def test_the_longest_change_of_one_server_fits_into_what_kms_signs() -> None:
    certificate = ServerCertificate(
        key=bytes(32),
        wireguard_key=bytes(32),
        tls_key_hash=bytes(32),
        region="x" * 63,
        backbone="172.16.103.255",
        slices=tuple(f"10.127.{number}.0/20" for number in range(100, 100 + MAX_SLICES)),
        epoch=2**32 - 1,
    )
    author = Author(key=SigningKey(bytes(32)), mesh_id=MESH_ID, clock=SystemClock())
    body = {
        "number": 2**53 - 1,
        "prev": "x" * 43,
        "servers": [certificate.value()],
        "removed": [{"root": "x" * 43, "server_id": certificate.server_id, "size": 2**53 - 1}],
        "witnesses": [certificate.server_id] * 9,
    }
    signed = author.record("roster.change", body).signed_bytes(MESH_ID)
    assert 1000 < len(signed) < MAX_MESSAGE_BYTES


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"<html>", b"x" * 100_000])
def test_any_bytes_in_place_of_an_answer_are_a_refusal_of_ours(body) -> None:
    from seipd.signerd.providers import kms_api

    assert isinstance(kms_api.error_of(400, body), SeipdError)
    if body:
        assert error_of(kms_api.decode_reply, body, kms_api.SignReply).code == "kms_refused"
