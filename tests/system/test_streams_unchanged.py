"""A stream leaves the edge as it came from the upstream, byte for byte; what the edge adds is before or after it."""

import hashlib

import pytest

from tests.system.running import events_of

CODEX = {"user-agent": "codex_exec/0.169.0", "originator": "codex_exec"}


@pytest.mark.parametrize("headers", [{}, CODEX], ids=["sdk", "codex"])
@pytest.mark.parametrize("path", ["/backend-api/codex/responses", "/v1/responses"])
@pytest.mark.parametrize(
    "simulate", ["events=3", "events=3,slow=0.02", "events=5000,slow=0", "fail=2,code=invalid_prompt"]
)
async def test_a_stream_passes_byte_for_byte(system, path, headers, simulate):
    async with system.edge.stream(
        "POST",
        path,
        json={"model": "gpt-5.5", "input": [{"role": "user", "content": "säg hej"}], "stream": True, "store": False},
        headers={**system.headers, **headers, "x-simulate": simulate},
    ) as answer:
        body = await answer.aread()
    sent = await what_the_upstream_sent(system, body)
    begin = body.index(b"event: response.created")

    assert hashlib.sha256(body[begin : begin + sent["bytes"]]).hexdigest() == sent["sha256"]


async def what_the_upstream_sent(system, body):
    ids = {event["response"]["id"] for event in events_of(body.decode()) if "response" in event}
    answers = (await system.operator.simulate("GET", "/__simulate/stats"))["answers"]
    return next(answer for answer in answers if {answer["response_id"]} == ids)
