"""Paths, tiles and whole logs that other implementations wrote."""

import base64
import json

import pytest

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from services.base.ledger.fsck import verify_log
from services.base.ledger.log import TileLog
from services.base.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hashes
from services.base.ledger.note import NoteVerifier, parse_note, parse_vkey
from services.base.ledger.tiles import (
    TileError,
    TileRef,
    decode_bundle,
    encode_bundle,
    index_path,
    parse_tile_path,
    tiles_between,
)
from tests.vectors.locate import vectors_dir

PATHS = json.loads((vectors_dir("tlog-tiles") / "paths.json").read_text())
GOLDEN = vectors_dir("tlog-tiles") / "tessera-golden-log"
GOLDEN_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
SKYLIGHT = vectors_dir("tlog-witness") / "sunlight-skylight"


@pytest.mark.parametrize("case", PATHS["tile_path"] + PATHS["entries_path"])
def test_the_path_of_a_tile(case):
    ref = TileRef(
        level=case.get("level"),
        index=case["index"] if "index" in case else case["N"],
        width=case.get("p") or 256,
    )
    assert ref.path() == case["wantPath"]
    assert parse_tile_path(case["wantPath"]) == ref


@pytest.mark.parametrize("case", PATHS["entries_path_for_index"])
def test_the_bundle_that_holds_an_entry(case):
    index = case["seq"] // 256
    width = min(256, case["logSize"] - index * 256)
    assert TileRef(level=None, index=index, width=width).path() == case["wantPath"]


@pytest.mark.parametrize("case", PATHS["parse"], ids=lambda c: f"{c['pathLevel']}/{c['pathIndex']}")
def test_led_19_only_the_one_spelling_of_a_path_is_read(case):
    path = f"tile/{case['pathLevel']}/{case['pathIndex']}"
    if case.get("wantErr"):
        with pytest.raises(TileError):
            parse_tile_path(path)
    else:
        want = TileRef(level=case["wantLevel"], index=case["wantIndex"], width=case["wantP"] or 256)
        assert parse_tile_path(path) == want


def test_the_examples_of_the_specification():
    index, big, small = PATHS["c2sp_text_examples"]
    assert index_path(index["index"]) == index["path"]
    for want in (big, small):
        refs = [ref for ref in tiles_between(0, want["tree_size"]) if ref.level is not None]
        for level in range(3):
            full = [one for one in refs if one.level == level and one.width == 256]
            partial = [one.width for one in refs if one.level == level and one.width < 256]
            assert len(full) == want.get(f"full_l{level}", 0)
            assert sum(partial) == want.get(f"partial_l{level}", 0)


@pytest.mark.parametrize("size", range(16))
def test_the_golden_log_at_each_size(size):
    verifier = parse_vkey(GOLDEN_KEY)
    data = (GOLDEN / f"checkpoint.{size}").read_bytes()
    checkpoint = verify_checkpoint(data, verifier, "example.com/log/testdata")
    assert checkpoint.size == size
    if size == 0:
        assert checkpoint.root == EMPTY_ROOT
        return
    bundle = (GOLDEN / f"tile/entries/000.p/{size}").read_bytes()
    entries = decode_bundle(bundle, size)
    assert encode_bundle(entries) == bundle
    hashes = leaf_hashes(entries)
    assert b"".join(hashes) == (GOLDEN / f"tile/0/000.p/{size}").read_bytes()
    frontier = Frontier()
    frontier.extend(hashes)
    assert frontier.root() == checkpoint.root


def test_the_judge_finds_the_golden_log_good():
    report = verify_log(GOLDEN, parse_vkey(GOLDEN_KEY), "example.com/log/testdata")
    assert report.size == 15


def test_a_log_of_the_same_entries_has_the_mirrored_tiles(tmp_path):
    (mirror,) = (SKYLIGHT / "witness/mirror").glob("*/checkpoint")
    want = parse_checkpoint(parse_note(mirror.read_bytes()).text)
    key = SigningKey(b"k" * 32)
    log = TileLog.open(
        tmp_path / "log",
        origin="log.example",
        verifier=NoteVerifier(name="log.example", public_key=key.public_key),
        create=True,
    )
    entries = [b"record %d" % i for i in range(want.size)]
    size, root = log.root_after(entries)
    assert (size, root) == (want.size, want.root)
    log.append(
        entries,
        sign_checkpoint(Checkpoint(origin="log.example", size=size, root=root), signer=key),
    )
    log.publish()
    log.close()
    tiles = sorted((mirror.parent / "tile").rglob("*"))
    compared = [path for path in tiles if path.is_file()]
    assert len(compared) == 3
    for path in compared:
        mine = tmp_path / "log" / path.relative_to(mirror.parent)
        assert mine.read_bytes() == path.read_bytes()
    assert base64.b64encode(root).startswith(b"gw31yQrq")
