"""Input that nobody sends by accident: each is answered clearly or cut off, every seat comes back, and the processes
go on as if nothing had happened.
"""

import asyncio
import contextlib
import gzip
import json
import zlib

import grpc
import grpc.aio
import pytest
import pytest_asyncio
import zstandard
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.system.running import TURN, eventually

ENVIRONMENT = {
    "SLUICEGATE_EDGE_HEAD_TIMEOUT": "1.5",
    "SLUICEGATE_EDGE_BODY_TIMEOUT": "3",
    "SLUICEGATE_EDGE_BODY_PROGRESS_TIMEOUT": "0.5",
    "SLUICEGATE_EDGE_CLIENT_WRITE_TIMEOUT": "0.5",
    "SLUICEGATE_EDGE_FRAME_LIMIT": "65536",
    "SLUICEGATE_EDGE_ALLOWED_ORIGINS": "https://console.example",
}
CODEX = "/backend-api/codex/responses"
MIB = 1024 * 1024
WITHIN = 15.0


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def nothing_is_broken(system):
    """Afterwards every seat is back, and the same processes answer."""
    names = ("edge_proxy", "control_api", "admission_server")
    before = [system.stack.pid(name) for name in names]
    logs = [system.stack.log_path(name) for name in names]
    seen = [log.stat().st_size for log in logs]
    yield
    await eventually(system.nothing_is_held, what="every seat is back")
    assert (await system.edge.get("/health/ready")).status_code == 200
    assert (await system.operator.control("GET", "/api/accounts"))["items"]
    assert [system.stack.pid(name) for name in names] == before
    for log, size in zip(logs, seen, strict=True):
        new = log.read_bytes()[size:].splitlines()
        assert not [line for line in new if b"Traceback" in line and b"Invalid UTF-8" not in line]


async def exchange(port, *parts, pause=0.0):
    """Sends raw bytes and returns all that comes back until the other side closes, or is quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(everything_from(reader))
    try:
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            await asyncio.wait([reading], timeout=pause)
        return await reading
    finally:
        writer.transport.abort()


async def everything_from(reader):
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(WITHIN):
            while chunk := await reader.read(65536):
                answer += chunk
    return answer


def statuses(answer):
    return [int(line.split(b" ")[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def head(path, *lines, method="POST", host="localhost", token=""):
    authorization = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *authorization, *lines, "", ""]).encode("latin-1")


# --- Framing: whatever two parsers could read differently is read by nobody.

HIDDEN = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = {
    "length and chunks": (["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\n" + HIDDEN),
    "two lengths": (["Content-Length: 4", "Content-Length: 5"], b"{}  " + HIDDEN),
    "two lengths in one": (["Content-Length: 4, 5"], b"{}  " + HIDDEN),
    "a signed length": (["Content-Length: +4"], b"{}  " + HIDDEN),
    "a negative length": (["Content-Length: -1"], HIDDEN),
    "a length in hex": (["Content-Length: 0x4"], b"{}  " + HIDDEN),
    "a length without end": (["Content-Length: 99999999999999999999999"], b"{}" + HIDDEN),
    "chunks not last": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n" + HIDDEN),
    "misspelt chunks": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n" + HIDDEN),
    "chunks twice": (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], b"0\r\n\r\n" + HIDDEN),
    "a space before the colon": (["Transfer-Encoding : chunked"], b"0\r\n\r\n" + HIDDEN),
    "a folded line": (["X-Folded: one", " two: three", "Content-Length: 0"], HIDDEN),
    "a bare carriage return": (["X-Bare: one\rTransfer-Encoding: chunked", "Content-Length: 0"], HIDDEN),
    "a bare line feed": (["X-Bare: one\nTransfer-Encoding: chunked"], b"0\r\n\r\n" + HIDDEN),
    "a NUL": (["X-Nul: a\0b", "Content-Length: 0"], HIDDEN),
    "a name with a space": (["X Name: a", "Content-Length: 0"], HIDDEN),
    "an empty name": ([": a", "Content-Length: 0"], HIDDEN),
    "a chunk size too large": (["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\n" + HIDDEN),
    "a chunk size that is none": (["Transfer-Encoding: chunked"], b"zz\r\n" + HIDDEN),
    "a chunk longer than it says": (["Transfer-Encoding: chunked"], b"1\r\n{}\r\n0\r\n\r\n" + HIDDEN),
}


@pytest.mark.parametrize("service", ["edge", "control"])
@pytest.mark.parametrize("trick", SMUGGLED)
async def test_a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed(system, service, trick):
    lines, rest = SMUGGLED[trick]
    path = CODEX if service == "edge" else "/api/keys"
    port = system.ports.edge if service == "edge" else system.ports.control
    token = system.key.key if service == "edge" else ""

    answer = await exchange(port, head(path, *lines, token=token) + rest)

    assert len(statuses(answer)) <= 1, answer
    assert all(status in {400, 401} for status in statuses(answer)), answer
    assert b'"ok"' not in answer


@pytest.mark.parametrize("request_line", ["GET", "GET /", "GET / HTTP/9.9", "G@T / HTTP/1.1", "\0\0\0"])
async def test_what_is_no_request_is_answered_400(system, request_line):
    for port in (system.ports.edge, system.ports.control):
        answer = await exchange(port, request_line.encode() + b"\r\n\r\n")

        assert statuses(answer) in ([400], [404], [408], [505]), answer


# --- Heads.


@pytest.mark.parametrize("service", ["edge", "control"])
@pytest.mark.parametrize("shape", ["one long header", "many headers", "a long path", "a header without end"])
async def test_a_head_that_is_too_large_is_refused(system, service, shape):
    sent = {
        "one long header": head("/health/live", "X-Long: " + "a" * 200_000, method="GET"),
        "many headers": head("/health/live", *(f"X-{n}: {n}" for n in range(20_000)), method="GET"),
        "a long path": head("/" + "a" * 200_000, method="GET"),
        "a header without end": b"GET /health/live HTTP/1.1\r\nX-Endless: " + b"a" * 1_000_000,
    }[shape]

    answer = await exchange(getattr(system.ports, service), sent)

    assert statuses(answer) in ([431], [400], []), answer[:200]


async def test_a_head_that_does_not_end_in_time_is_refused(system):
    answer = await exchange(system.ports.edge, b"GET /health/live HTTP/1.1\r\nX-Slow: ", b"a", pause=0.05)

    assert statuses(answer) == [408]


async def test_headers_do_not_reach_into_the_answer_or_the_log(system):
    sent = head("/health/nowhere", 'X-Request-Id: x\tSet-Cookie: a=b"}', "Content-Length: 0", token=system.key.key)

    answer = await exchange(system.ports.edge, sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    assert b"Set-Cookie" not in answer
    for line in system.stack.log_path("edge_proxy").read_text().splitlines():
        assert json.loads(line)


# --- Paths, methods, origins.

PATHS = [
    "/backend-api/codex/../codex/responses",
    "/backend-api//codex/responses",
    "//backend-api/codex/responses",
    "/backend-api\\codex\\responses",
    "/backend-api%2fcodex/responses",
    "/backend-api/codex/%2e%2e/codex/responses",
    "/backend-api/codex/responses%00",
    "/backend-api/codex/responses%0d%0aX-Injected:%20yes",
    "/backend-api/codex/%72esponses%ff",
    "/backend-api/codex/responses;x=1",
    "/api/accounts",
    "/__simulate/stats",
    "http://evil.example/api/accounts",
    "*",
    "",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_path_that_could_mean_two_things_leads_nowhere(system, path, method):
    sent = head(path, "Content-Length: 0", "Connection: close", method=method, token=system.key.key)

    answer = await exchange(system.ports.edge, sent)

    assert statuses(answer) in ([400], [404]), answer
    assert b"X-Injected" not in answer.split(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "path", ["/api/../api/accounts", "//api/accounts", "/api%2faccounts", "/API/accounts", "/api/./keys"]
)
async def test_no_spelling_of_a_path_gets_past_the_admin_token(system, path):
    answer = await exchange(system.ports.control, head(path, "Connection: close", method="GET"))

    assert statuses(answer) in ([400], [401], [404]), answer


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "PROPFIND", "OPTIONS", "PUT", "DELETE"])
async def test_an_unknown_method_is_refused(system, method):
    for port, path in ((system.ports.edge, CODEX), (system.ports.control, "/api/keys")):
        target = "localhost:80" if method == "CONNECT" else path
        sent = head(target, "Content-Length: 0", "Connection: close", method=method, token=system.key.key)
        answer = await exchange(port, sent)

        assert len(statuses(answer)) == 1, answer
        assert statuses(answer)[0] in {400, 401, 404, 405}, answer


def socket_to(system, path=CODEX, **options):
    return connect(
        f"ws://127.0.0.1:{system.ports.edge}{path}",
        additional_headers=system.headers,
        proxy=None,
        compression=None,
        open_timeout=WITHIN,
        **options,
    )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8080"])
async def test_a_web_page_may_not_open_a_socket(system, origin):
    with pytest.raises(InvalidStatus) as refused:
        async with socket_to(system, origin=origin):
            pass

    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "origin_not_allowed"


async def test_an_origin_that_was_named_may_open_a_socket(system):
    async with socket_to(system, origin="https://console.example") as socket:
        await socket.send(json.dumps({**TURN, "type": "response.create"}))

        assert json.loads(await socket.recv())["type"] != "error"


@pytest.mark.parametrize("lines", [["Origin: https://evil.example"], ["Origin: null"], []])
async def test_a_web_page_gets_nothing_without_a_key(system, lines):
    body = json.dumps(TURN).encode()
    host = "127.0.0.1" if lines else "rebound.evil.example"
    sent = head(
        CODEX, *lines, "Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close", host=host
    )

    answer = await exchange(system.ports.edge, sent + body)

    assert statuses(answer) == [403]


# --- Bodies.


async def test_a_body_that_does_not_come_is_not_waited_for(system):
    sent = head(CODEX, "Content-Length: 100", token=system.key.key)

    answer = await exchange(system.ports.edge, sent + b"{")

    assert statuses(answer) == [408]
    assert b"request_body_timeout" in answer


async def test_a_body_that_drips_is_cut_off_in_the_end(system):
    sent = head(CODEX, "Content-Length: 1000", token=system.key.key)

    answer = await exchange(system.ports.edge, sent, *[b" "] * 30, pause=0.2)

    assert statuses(answer) == [408]


async def test_a_reader_that_does_not_read_loses_its_turn(system):
    reader, writer = await asyncio.open_connection("127.0.0.1", system.ports.edge, limit=1024)
    body = json.dumps(TURN).encode()
    sent = head(CODEX, f"Content-Length: {len(body)}", "x-simulate: events=200000,slow=0", token=system.key.key)
    writer.write(sent + body)
    await reader.readexactly(20)
    await eventually(system.nothing_is_held, what="the reader that does not read has lost its seats")

    writer.transport.abort()


@pytest.mark.parametrize("path", [CODEX, "/v1/responses", "/v1/chat/completions"])
async def test_a_body_that_says_that_it_is_too_large_is_not_read(system, path):
    answer = await exchange(
        system.ports.edge, head(path, f"Content-Length: {4096 * MIB}", "Connection: close", token=system.key.key)
    )

    assert statuses(answer) in ([413], [503]), answer


def bombs():
    zeros = b"\0" * (200 * MIB)
    deflated = zlib.compressobj(9)
    return {
        "gzip": gzip.compress(zeros, compresslevel=9),
        "zstd": zstandard.ZstdCompressor(level=3).compress(zeros),
        "deflate": deflated.compress(zeros) + deflated.flush(),
    }


async def test_a_bomb_is_not_unpacked(system):
    for encoding, packed in bombs().items():
        headers = {**system.headers, "content-encoding": encoding, "content-type": "application/json"}
        answer = await system.edge.post(CODEX, content=packed, headers=headers)

        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large"), encoding


async def test_a_window_as_large_as_the_memory_is_refused(system):
    # A frame header that asks for a window of 2 GiB, and a block of nothing.
    frame = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"
    headers = {**system.headers, "content-encoding": "zstd"}
    answer = await system.edge.post(CODEX, content=frame, headers=headers)

    assert answer.status_code == 400


@pytest.mark.parametrize("packed", [b"not packed at all", gzip.compress(b"{}")[:-9]])
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "br", "gzip, gzip"])
async def test_what_cannot_be_unpacked_is_refused(system, packed, encoding):
    answer = await system.edge.post(CODEX, content=packed, headers={**system.headers, "content-encoding": encoding})

    assert answer.status_code == 400


def nested(depth):
    return b"[" * depth + b"]" * depth


BAD_JSON = {
    "deep": b'{"input":' + nested(100_000) + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep enough to be read": b'{"model":"gpt-5.5","input":' + nested(500) + b"}",
    "not UTF-8": b'{"model":"\xff\xfe"}',
    "overlong": b'{"model":"\xc0\xaf"}',
    "half a surrogate": b'{"model":"\\ud800"}',
    "half a surrogate in UTF-8": b'{"model":"\xed\xa0\x80"}',
    "no number": b'{"model":NaN}',
    "a huge number": b'{"model":1' + b"0" * 5000 + b"}",
    "a list": b"[]",
    "a string": b'"x"',
    "nothing": b"",
    "model is a list": b'{"model":[],"input":{}}',
    "all is wrong": b'{"model":1,"input":2,"stream":"x","tools":3,"client_metadata":[],"previous_response_id":{}}',
}


@pytest.mark.parametrize("path", [CODEX, f"{CODEX}/compact", "/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("name", BAD_JSON)
async def test_json_that_is_none_or_too_deep_is_the_clients_fault(system, path, name):
    answer = await system.edge.post(path, content=BAD_JSON[name], headers=system.headers)

    assert answer.status_code not in {500, 502}, answer.text
    assert answer.status_code < 500 or answer.json()["error"]["code"] == "no_accounts", answer.text


CONTROL_PATHS = [
    ("POST", "/api/keys"),
    ("POST", "/api/accounts"),
    ("POST", "/api/accounts/import"),
    ("PATCH", "/api/limits"),
]


@pytest.mark.parametrize(("method", "path"), CONTROL_PATHS)
@pytest.mark.parametrize("name", BAD_JSON)
async def test_the_control_api_takes_bad_json_for_what_it_is(system, method, path, name):
    headers = {"content-type": "application/json"}
    answer = await system.operator._control.request(method, path, content=BAD_JSON[name], headers=headers)

    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_control_api_refuses_large_bodies(system):
    async def endless():
        for _ in range(64):
            yield b" " * 65536

    answer = await system.operator._control.post("/api/keys", content=endless())
    named = await system.operator._control.post("/api/accounts/import", content=b" " * 4 * MIB)

    assert (answer.status_code, named.status_code) == (413, 413)


@pytest.mark.parametrize("text", ['{"name":"a\\u0000b"}', '{"name":"\\ud800"}', '{"name":"' + "a" * 100_000 + '"}'])
async def test_names_that_no_database_likes_are_refused_or_kept(system, text):
    answer = await system.operator._control.post(
        "/api/keys", content=text, headers={"content-type": "application/json"}
    )

    assert answer.status_code in {201, 422}, answer.text


async def test_a_body_that_does_not_come_keeps_no_seat_of_the_control_api(system):
    sent = head("/api/keys", "Content-Type: application/json", "Content-Length: 100")

    answer = await exchange(system.ports.control, sent + b"{")

    assert statuses(answer) == [401]  # without the token nobody waits for it at all


# --- Frames.


async def next_error(socket):
    async with asyncio.timeout(WITHIN):
        while True:
            frame = json.loads(await socket.recv())
            if frame["type"] == "error":
                return frame


@pytest.mark.parametrize("name", BAD_JSON)
async def test_a_frame_that_cannot_be_read_is_told_or_ends_the_socket(system, name):
    frame = BAD_JSON[name].replace(b"{", b'{"type":"response.create",', 1) if name != "deep objects" else BAD_JSON[name]
    async with socket_to(system) as socket:
        try:
            await socket.send(frame, text=True)
            ended = (await next_error(socket))["status"]
        except ConnectionClosed as closed:
            ended = closed.rcvd.code if closed.rcvd else None

    assert ended in {1007, 1009} or 400 <= ended < 500


async def test_a_frame_that_is_too_large_ends_the_socket(system):
    async with socket_to(system) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({**TURN, "type": "response.create", "instructions": "a" * MIB}))
        await asyncio.wait_for(socket.wait_closed(), WITHIN)

    assert socket.close_code == 1009


async def test_a_frame_in_parts_that_is_too_large_ends_the_socket(system):
    async with socket_to(system) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send("a" * 1024 for _ in range(2048))
        await asyncio.wait_for(socket.wait_closed(), WITHIN)

    assert socket.close_code in {1009, 1006}


async def test_a_binary_frame_is_not_understood(system):
    async with socket_to(system) as socket:
        await socket.send(b"\x00\xff")
        error = await next_error(socket)

    assert error["status"] == 400


async def test_a_socket_that_is_not_read_loses_its_turn(system):
    headers = {**system.headers, "x-simulate": "events=200000,slow=0"}
    url = f"ws://127.0.0.1:{system.ports.edge}{CODEX}"
    async with connect(
        url, additional_headers=headers, proxy=None, compression=None, max_queue=1, close_timeout=0.1
    ) as socket:
        await socket.send(json.dumps({**TURN, "type": "response.create"}))
        await socket.recv()
        await eventually(system.nothing_is_held, what="the socket that nobody reads has lost its seats")


# --- The admission server.


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000],
)
async def test_what_is_no_http2_is_cut_off(system, sent):
    async with asyncio.timeout(WITHIN):
        answer = await exchange(system.ports.admission, sent)

    assert b"HTTP/1" not in answer


@pytest.mark.parametrize("method", ["GetState", "ListLeases", "WatchState"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(system, method):
    async with grpc.aio.insecure_channel(system.admission_target) as channel:
        call = channel.unary_unary(f"/admission.v1.StateService/{method}", None, None)
        codes = [await error_of(call(content, timeout=WITHIN)) for content in (b"\xff" * 50, b"\x0a\x7f")]

    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 2


async def test_messages_and_metadata_have_a_largest_size(system):
    async with grpc.aio.insecure_channel(system.admission_target) as channel:
        state = channel.unary_unary("/admission.v1.StateService/GetState", None, None)
        large = await error_of(state(b"\x7a" + b"\0" * 17 * MIB, timeout=WITHIN))
        loud = await error_of(state(b"", metadata=(("x-loud", "a" * 100_000),), timeout=WITHIN))

    assert (large, loud) == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_a_method_that_does_not_exist_is_told(system):
    async with grpc.aio.insecure_channel(system.admission_target) as channel:
        codes = [
            await error_of(channel.unary_unary(method, None, None)(b"", timeout=WITHIN))
            for method in ("/admission.v1.StateService/Nothing", "/nothing/at/all", "nothing")
        ]

    assert codes == [grpc.StatusCode.UNIMPLEMENTED] * 3


async def test_after_all_that_turns_are_served(system):
    assert (await system.turn()).status_code == 200
