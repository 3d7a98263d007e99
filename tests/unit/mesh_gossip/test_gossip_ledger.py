"""Gossip under the ledger that it serves: real feeds, checkpoints and cosignatures on loopback."""

from __future__ import annotations

import asyncio

import pytest

from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import SigningKey
from services.base.ledger.author import Author
from services.base.ledger.roster import Charter
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.addr import Ranges, pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.ids import b64u_encode, mesh_id_of, new_uuid, node_id_of
from services.mesh.gossip.addresses import Advertisement
from services.mesh.gossip.service import GossipService
from services.mesh.gossip.settings import GossipSettings
from services.runtime.clock import SystemClock
from tests.unit.mesh_gossip.gossip_kit import key_of

from services.authority.tree.view import APPLIERS

ROOT = key_of("root")
NAMES = ("ann", "bob", "cid")
PLACE = Advertisement(host="127.0.0.1", http_port=9100, wireguard_port=51940, region="eu-west")
CLOCK = SystemClock()
