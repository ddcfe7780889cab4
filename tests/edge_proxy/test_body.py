"""Request bodies: limits, budget, encodings."""

import asyncio
import gzip
import json
import zlib

import pytest
import zstandard

from admission_client.memory import MemoryAdmission
from edge_proxy.body import ByteBudget, decode
from edge_proxy.errors import BodyBudgetExhausted, BodyMalformed, BodyTooLarge
from tests.edge_proxy.running import RunningEdge, running_edge
from tests.edge_proxy.scripted_upstream import ScriptedUpstream

CODEX = "/backend-api/codex/responses"
BODY = json.dumps({"model": "gpt-5.5", "input": [], "stream": True, "pad": "x" * 1000}).encode()
ENCODED = {
    "zstd": zstandard.compress(BODY),
    "gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_each_encoding_is_decoded_within_the_limit(encoding: str):
    assert decode(ENCODED[encoding], encoding, len(BODY)) == BODY
    with pytest.raises(BodyTooLarge):
        decode(ENCODED[encoding], encoding, len(BODY) - 1)
    with pytest.raises(BodyMalformed):
        decode(b"nonsense", encoding, 100)


def test_a_bomb_stays_small():
    bomb = zstandard.compress(bytes(64 * 1024 * 1024))

    with pytest.raises(BodyTooLarge):
        decode(bomb, "zstd", 1024)


def test_deflate_without_its_header_is_understood():
    raw = zlib.compressobj(wbits=-15)

    assert decode(raw.compress(BODY) + raw.flush(), "deflate", 10_000) == BODY


def test_the_budget_refuses_what_does_not_fit_and_forgets_what_came_back():
    budget = ByteBudget(10)
    budget.take(8)
    with pytest.raises(BodyBudgetExhausted):
        budget.take(3)

    budget.give_back(8)
    budget.take(10)

    assert budget.taken == 10


@pytest.mark.parametrize("encoding", ENCODED)
async def test_an_encoded_body_goes_on_as_it_came(edge: RunningEdge, upstream: ScriptedUpstream, encoding: str):
    async with edge.client() as client:
        answer = await client.post(CODEX, content=ENCODED[encoding], headers={"content-encoding": encoding})

    assert answer.status_code == 200
    assert upstream.seen[0].body == ENCODED[encoding]
    assert upstream.seen[0].headers["content-encoding"] == encoding


async def test_an_encoded_body_that_must_change_goes_on_plain(edge: RunningEdge, upstream: ScriptedUpstream):
    async with edge.client() as client:
        await client.post("/v1/responses", content=ENCODED["zstd"], headers={"content-encoding": "zstd"})

    assert upstream.seen[0].json["store"] is False
    assert "content-encoding" not in upstream.seen[0].headers


@pytest.mark.parametrize(
    ("content", "headers"),
    [(b"{", {}), (b"[]", {}), (b"", {}), (b"{}", {"content-encoding": "br"}), (b"{}", {"content-encoding": "gzip"})],
)
async def test_a_body_that_cannot_be_read_is_400(
    edge: RunningEdge, upstream: ScriptedUpstream, content: bytes, headers: dict[str, str]
):
    async with edge.client() as client:
        answer = await client.post(CODEX, content=content, headers=headers)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert not upstream.seen


async def test_an_announced_body_over_the_limit_is_413_unread(edge: RunningEdge):
    reader, writer = await asyncio.open_connection(*edge.address)
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: e\r\nauthorization: Bearer x\r\ncontent-length: 33554433\r\n\r\n"
    writer.write(head.encode())

    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_bodies_over_the_budget_are_503_and_the_budget_comes_back(admission: MemoryAdmission):
    async with running_edge(admission, body_budget=1024 * 1024) as edge, edge.client() as client:
        refused = await client.post(CODEX, json={"model": "m", "stream": True, "input": ["x" * 2_000_000]})
        served = await client.post(CODEX, content=BODY)
        left = edge.count("sluicegate_edge_body_bytes")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "body_budget_exhausted")
    assert int(refused.headers["retry-after"]) >= 1
    assert served.status_code == 200
    assert left == 0
