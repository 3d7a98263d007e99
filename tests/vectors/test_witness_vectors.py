"""The witness conversation that sunlight's own witness is tested with."""

import json

from seipd.api.errors import status_of
from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import verify_cosignature
from services.base.ledger.note import NoteVerifier
from services.base.ledger.witness import StaleSizeError, Witness, held_of
from services.base.ledger.witnesskey import WitnessKey
from services.kernel.errors import SeipdError
from tests.fakes.witnessed import RememberedLog, RememberedLogs
from tests.vectors.locate import vectors_dir

VECTOR = json.loads((vectors_dir("tlog-witness") / "add-checkpoint.json").read_text())
NOW_S = 1_700_000_000


class StillClock:
    def now_ms(self) -> int:
        return NOW_S * 1000

    def monotonic_s(self) -> float:
        return 0.0


def vector_log() -> RememberedLog:
    key = bytes.fromhex(VECTOR["log_ed25519_pub_hex"])
    return RememberedLog(NoteVerifier(name=VECTOR["log_origin"], public_key=key))


def vector_witness(log: RememberedLog) -> Witness:
    key = SigningKey(bytes.fromhex(VECTOR["witness_ed25519_seed_hex_from_torchwood"]))
    cosigner = WitnessKey(key=key, clock=StillClock())
    return Witness(logs=RememberedLogs(log), key=cosigner, name="example.com/witness")


async def ask(witness: Witness, body: bytes) -> tuple[int, str]:
    try:
        return 200, (await witness.add_checkpoint(body)).decode()
    except StaleSizeError as error:
        return 409, f"{error.size}\n"
    except SeipdError as error:
        return status_of(error), str(error)


async def test_the_conversation_is_answered_as_published():
    log = vector_log()
    witness = vector_witness(log)
    assert len(VECTOR["cases"]) == 11
    for case in VECTOR["cases"]:
        status, text = await ask(witness, case["request_body"].encode())
        assert (case["name"], status) == (case["name"], case["want_status"])
        assert case["want_body_contains"] in text
        if status == 200:
            signed = case["request_body"].split("\n\n", 1)[1] + text
            key = SigningKey(bytes.fromhex(VECTOR["witness_ed25519_seed_hex_from_torchwood"]))
            verifier = WitnessKey(key=key, clock=StillClock()).verifier("example.com/witness")
            assert verify_cosignature(signed.encode(), verifier) == NOW_S
    assert held_of(log).size == 5
