"""How a caller joins, proves its key and posts."""

from __future__ import annotations

import json

from services.base.crypto.signatures import generate_signing_key
from services.edge.auth.sessions import auth_input
from services.kernel.ids import b64u_decode, b64u_encode


async def post(client, path, data, **headers):
    answer = await client.post(path, data=data, headers=headers)
    return answer.status, json.loads(await answer.read())


async def login(public, server, key, *, nonce=None, purpose=auth_input):
    if nonce is None:
        _, given = await post(public, "/api/auth/challenge", b"{}")
        nonce = given["nonce"]
    signed = purpose(server.ledger.mesh_id, server.ledger.server_id, b64u_decode(nonce))
    body = {
        "key": b64u_encode(key.public_key),
        "nonce": nonce,
        "signature": b64u_encode(key.sign(signed)),
    }
    return await post(public, "/api/auth", json.dumps(body))


async def joined(public, server, name="laptop", **wanted):
    key = generate_signing_key()
    record = server.join_record(await server.token(**wanted), key, name)
    status, answer = await post(public, "/api/join", json.dumps({"record": record}))
    assert status == 201, answer
    return key, answer
