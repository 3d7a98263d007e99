"""Settling and the witness conversation never sign two stories, however they are interleaved."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random

import pytest

from services.base.crypto.signatures import verify
from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.note import cosignature_input, parse_signature_line
from services.kernel.errors import SeipdError
from services.kernel.ids import b64u_decode
from tests.unit.base_ledger_fold.test_ledger_forks import Scene, Story

STEPS = 30


class Signed:
    """Everything that the witness has signed of the liar's feed: size, time, signature."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.witness = scene.ledgers[0]
        self.by_settling: list[tuple[int, int, bytes]] = []
        self.by_asking: list[tuple[int, int, bytes]] = []
        self.witness.on_cosign(self._cosigned)

    def _cosigned(self, server_id, epoch, size, line) -> None:
        if server_id == self.scene.liar.id:
            _, time_text, signature = line.decode().split(" ")
            self.by_settling.append((size, int(time_text), b64u_decode(signature)))

    async def ask(self, story: Story, old: int) -> None:
        log = story.log
        proof = log.consistency_proof(old, log.size) if 0 < old < log.size else []
        lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
        size, body = log.size, f"old {old}\n{lines}\n".encode() + log.checkpoint
        line = await self.witness.witness.add_checkpoint(body)
        blob = parse_signature_line(line.decode().removesuffix("\n")).signature
        self.by_asking.append((size, int.from_bytes(blob[:8], "big"), blob[8:]))

    def is_of(self, story: Story, size: int, time_s: int, signature: bytes) -> bool:
        root = story.log.root_at(size)
        if root is None:
            return False
        text = Checkpoint(origin=story.log.origin, size=size, root=root).text()
        key = self.scene.honest[0].key.public_key
        return verify(key, cosignature_input(text, time_s), signature)


async def step(scene: Scene, signed: Signed, rng: random.Random) -> None:
    story = rng.choice(scene.stories)
    head = signed.witness.feeds().get(scene.liar.id)
    held = head.size if head else 0
    match rng.randrange(4):
        case 0:
            scene.tell_apart(*[rng.randint(1, 2) if one is story else 0 for one in scene.stories])
        case 1:
            await story.hand_to(signed.witness)
        case _:
            await signed.ask(story, rng.choice([held, held, rng.randint(0, story.log.size)]))


@pytest.mark.parametrize("seed", range(12))
async def test_led_06_one_story_alone_is_signed_by_both_ways(tmp_path, seed) -> None:
    rng = random.Random(seed)  # noqa: S311 (failures repeat)
    async with Scene(tmp_path) as scene:
        first = scene.ledgers[0]
        first.witness._logs._arrival_s = 0.02
        signed = Signed(scene)
        scene.common(2)
        await scene.stories[seed % 2].hand_to(first)
        for _ in range(STEPS):
            asks = [asyncio.create_task(step(scene, signed, rng)) for _ in range(3)]
            for ask in asks:
                with contextlib.suppress(SeipdError):
                    await ask
        everything = signed.by_settling + signed.by_asking
        assert signed.by_settling
        assert any(all(signed.is_of(story, *one) for one in everything) for story in scene.stories)
        assert scene.fatal == []
