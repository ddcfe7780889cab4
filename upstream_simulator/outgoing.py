"""How answers leave: JSON, refusals, and scripts played as server-sent events."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from upstream_simulator.refusals import Refusal
from upstream_simulator.script import Ending, Script


def json_answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns a JSON response."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def refusal_answer(refusal: Refusal, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns a refusal as a response."""
    return json_answer(refusal.body, status=refusal.status, headers={**(headers or {}), **refusal.headers})


def server_sent(event: Mapping[str, Any]) -> bytes:
    """Returns an event as it stands on the wire."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


async def open_event_stream(request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
    """Sends the status line and headers of a stream of events."""
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def play(
    script: Script, request: web.Request, headers: Mapping[str, str], *, on_sent: Callable[[bytes], None]
) -> web.StreamResponse:
    """Plays a script as an event stream, with its pauses and its ending. `on_sent` gets the whole of it, once sent."""
    response = await open_event_stream(request, headers)
    sent = bytearray()
    for number, event in enumerate(script.events):
        pause = script.pause_before(number)
        if pause:
            await asyncio.sleep(pause)
        block = server_sent(event)
        await response.write(block)
        sent += block
    on_sent(bytes(sent))
    match script.ending:
        case Ending.SILENCE:
            await asyncio.Event().wait()
        case Ending.CUT:
            break_off(request)
        case Ending.ORDERLY | Ending.CLOSE:
            await response.write_eof()
    return response


def break_off(request: web.Request) -> None:
    """Closes the connection where it stands: what was written arrives, the end of the body does not."""
    if request.transport is not None:
        request.transport.close()
