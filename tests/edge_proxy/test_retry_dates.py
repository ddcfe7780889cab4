"""An upstream may say when to come back as a date: that bounds an account's cooldown, and reaches the client."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import pytest

from admission_client.lease import AccountKind
from admission_client.memory import MemoryAdmission
from edge_proxy.outcome import judge_answer, judge_event
from tests.edge_proxy.running import RunningEdge, accounts
from tests.edge_proxy.scripted_upstream import ScriptedUpstream, refusal


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


def test_a_date_says_how_long_to_wait():
    answer = judge_answer(429, {"retry-after": in_seconds(90)}, b"")
    event = judge_event({"type": "error", "status": 429, "headers": {"retry-after": in_seconds(90)}})

    assert answer.resets_after == pytest.approx(90, abs=2)
    assert event.resets_after == pytest.approx(90, abs=2)


@pytest.mark.parametrize(
    "told",
    [
        in_seconds(-90),
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Mon, 99 Jan 2030 00:00:00 GMT",
        format_datetime(datetime.now(UTC) + timedelta(seconds=90)),
        "Mon, " * 100_000,
        "\ud800",
        "",
    ],
)
def test_what_is_no_plausible_date_says_nothing(told: str):
    assert judge_answer(429, {"retry-after": told}, b"").resets_after is None


async def test_a_date_leaves_as_whole_seconds(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = accounts(upstream.url, AccountKind.CHATGPT)
    upstream.script(refusal(429, {"message": "slow down"}, retry_after=in_seconds(60)))
    async with edge.client() as client:
        answer = await client.post("/backend-api/codex/responses", json={"model": "m", "stream": True, "input": []})

    assert answer.status_code == 429
    assert 50 <= int(answer.headers["retry-after"]) <= 60
