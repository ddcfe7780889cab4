"""A client that leaves is noticed at once, wherever its request is, and everything it held comes back."""

import asyncio
import json

from admission_client.lease import Outcome
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, until
from tests.edge_proxy.scripted_upstream import TURN, ScriptedUpstream, silence, stream

CODEX = "/backend-api/codex/responses"


async def _ask(edge: RunningEdge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = json.dumps({"model": "gpt-5.5", "input": [], "stream": True})
    reader, writer = await asyncio.open_connection(*edge.address)
    head = (
        f"POST {CODEX} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer sk-sg-x\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body.encode())
    return reader, writer


async def test_while_the_upstream_has_not_answered(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(silence())
    _, writer = await _ask(edge)
    await until(lambda: upstream.open_streams == 1)

    writer.close()

    await until(lambda: edge.idle)
    await until(lambda: upstream.closed_by_client == 1)
    assert [report.outcome for report in admission.reports] == [Outcome.NEUTRAL]


async def test_while_a_stream_is_silent(edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(stream(TURN[0], "hang"))
    reader, writer = await _ask(edge)
    await reader.readuntil(b"response.created")

    writer.transport.abort()

    await until(lambda: edge.idle)
    await until(lambda: upstream.closed_by_client == 1)
    assert [report.outcome for report in admission.reports] == [Outcome.NEUTRAL]


async def test_while_waiting_for_work(edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream):
    admission.set_limit("accounts/-/streams", 1, max_wait=60)
    admission.held["accounts/acc_1/streams"] = 1
    _, writer = await _ask(edge)
    await until(lambda: admission.waiting("accounts/-/streams") == 1)

    writer.close()

    await until(lambda: admission.waiting("accounts/-/streams") == 0)
    await until(lambda: set(admission.held) == {"accounts/acc_1/streams"})
    assert not upstream.seen


async def test_while_sending_its_body(edge: RunningEdge, admission: MemoryAdmission):
    _, writer = await asyncio.open_connection(*edge.address)
    head = f"POST {CODEX} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer sk-sg-x\r\ncontent-length: 1000\r\n\r\n{{"
    writer.write(head.encode())
    await until(lambda: "lanes/proxy_http" in admission.held)

    writer.close()

    await until(lambda: edge.idle)


async def test_after_the_last_event_it_still_counts_as_success(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(stream(*TURN, "hang"))
    reader, writer = await _ask(edge)
    await reader.readuntil(b"response.completed")

    writer.close()

    await until(lambda: edge.idle)
    assert [report.outcome for report in admission.reports] == [Outcome.SUCCEEDED]
