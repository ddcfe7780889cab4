"""Turns over WebSocket, as the edge meets them."""

import json

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.upstream_simulator.conftest import SOCKET_VERSION, eventually

TELEMETRY = ["codex.rate_limits", "response.metadata"]


def types(events):
    return [event["type"] for event in events]


async def test_a_warm_up_begins_what_the_first_turn_continues(client):
    async with client.connect() as socket:
        warm_up = await socket.turn(generate=False, input=[])
        turn = await socket.turn(previous_response_id=warm_up[-1]["response"]["id"])

    assert types(warm_up) == [*TELEMETRY, "response.created", "response.in_progress", "response.completed"]
    assert "say hi" in turn[-1]["response"]["output"][0]["content"][0]["text"]


async def test_a_response_is_continued_on_its_own_socket_only(client):
    async with client.connect() as first, client.connect() as second:
        made = (await first.turn())[-1]["response"]["id"]
        (refused,) = await second.turn(previous_response_id=made)

    assert (refused["status"], refused["error"]["code"]) == (400, "previous_response_not_found")


async def test_lines_run_side_by_side_and_name_themselves(client):
    async with client.connect() as socket:
        await socket.send(stream_id="held", client_metadata={"x-simulate": "hang"})
        begun = [await socket.next() for _ in range(4)]
        other = await socket.turn(stream_id="other")

    assert {event["stream_id"] for event in begun} == {"held"}
    assert {event["stream_id"] for event in other} == {"other"}


async def test_turns_of_one_line_wait_for_one_another(client):
    async with client.connect() as socket:
        await socket.send()
        await socket.send()
        events = [await socket.next()]
        while types(events).count("response.completed") < 2:
            events.append(await socket.next())

    ids = [event["response"]["id"] for event in events if event["type"] in {"response.created", "response.completed"}]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert (await client.simulator.stats())["streams"][client.id]["most"] == 1


async def test_a_turn_can_be_cancelled(client):
    async with client.connect() as socket:
        await socket.send(client_metadata={"x-simulate": "slow=0.05,events=1000"})
        await socket.next()
        await socket.websocket.send(json.dumps({"type": "response.cancel"}))
        events = [await socket.next()]
        while not events[-1]["type"].startswith("response.incomplete"):
            events.append(await socket.next())

    assert events[-1]["response"]["incomplete_details"] == {"reason": "cancelled"}


@pytest.mark.parametrize("frame", ["{", "[]", b"{}", '{"type":"unheard.of"}'])
async def test_frames_that_mean_nothing_are_answered_and_the_socket_stays(client, frame):
    async with client.connect() as socket:
        await socket.websocket.send(frame)
        refused = await socket.next()
        after = await socket.turn()

    assert (refused["type"], refused["status"]) == ("error", 400)
    assert after[-1]["type"] == "response.completed"


async def test_a_refused_turn_is_an_error_frame_and_the_socket_stays(client):
    async with client.connect() as socket:
        (refused,) = await socket.turn(client_metadata={"x-simulate": "status=429,retry-after=2"})
        (unsupported,) = await socket.turn(temperature=1)
        after = await socket.turn()

    assert (refused["status"], refused["headers"]) == (429, {"retry-after": "2"})
    assert unsupported["error"]["message"] == "Unsupported parameter: temperature"
    assert after[-1]["type"] == "response.completed"


async def test_a_socket_can_be_closed_or_cut_in_the_middle_of_a_turn(client):
    with pytest.raises(ConnectionClosedError) as closed:
        async with client.connect("close=1011,cut=3") as socket:
            await socket.turn()
    with pytest.raises(ConnectionClosedError) as cut:
        async with client.connect("cut=3") as socket:
            await socket.turn()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert cut.value.rcvd is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"authorization": "Bearer made-up"}, 401),
        ({"chatgpt-account-id": "other"}, 401),
        ({"openai-beta": "responses=experimental"}, 400),
        ({"x-simulate": "status=426"}, 426),
        ({"x-simulate": "handshake,status=429,retry-after=1"}, 429),
    ],
)
async def test_a_handshake_is_refused_with_a_real_answer(client, change, status):
    headers = {**client.headers, **SOCKET_VERSION, **change}

    with pytest.raises(InvalidStatus) as refused:
        async with client.simulator.connect("/backend-api/codex/responses", headers):
            pass
    assert refused.value.response.status_code == status


async def test_a_plain_get_is_no_handshake(client):
    answer = await client.simulator.http.get(
        "/backend-api/codex/responses", headers={**client.headers, **SOCKET_VERSION}
    )

    assert answer.status_code == 405


async def test_faults_of_an_account_meet_the_next_handshake_or_the_next_turn(client):
    await client.change(simulate="handshake,status=503", times=1)
    with pytest.raises(InvalidStatus):
        async with client.connect():
            pass
    await client.change(simulate="status=500", times=1)
    async with client.connect() as socket:
        (refused,) = await socket.turn()
        served = await socket.turn()

    assert refused["status"] == 500
    assert served[-1]["type"] == "response.completed"


async def test_the_lenient_service_speaks_it_too_without_telemetry(simulator):
    client = await simulator.account(kind="api_key")
    async with client.connect() as socket:
        events = await socket.turn(store=True, temperature=1, input="say hi")

    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"


async def test_a_client_that_leaves_ends_its_turns(client):
    async with client.connect("hang") as socket:
        await socket.send()
        await socket.next()
        while_open = await client.simulator.stats()

    async def nothing_is_left():
        stats = await client.simulator.stats()
        return stats["sockets"][client.id]["now"] == stats["streams"][client.id]["now"] == 0

    assert while_open["sockets"][client.id]["now"] == 1
    await eventually(nothing_is_left)
