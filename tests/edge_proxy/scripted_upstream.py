"""A real HTTP server that answers as the test scripts it, and remembers what it was sent."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request, "ScriptedUpstream"], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedUpstream:
    """Answers in the scripted order; the last answer goes on for ever."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answers: deque[Answer] = field(default_factory=deque)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """What an answer waits for that is told to hang."""
    frames: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Frames of sockets, each with the token of its socket."""
    socket_turns: deque[list[Any]] = field(default_factory=deque)
    """What sockets answer to one turn after another, whichever socket it comes by."""
    sockets_opened: int = 0
    sockets_open: int = 0
    open_streams: int = 0
    closed_by_client: int = 0

    def script(self, *answers: Answer) -> None:
        self.answers = deque(answers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            Seen(request.method, request.raw_path, {k.lower(): v for k, v in request.headers.items()}, body)
        )
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        self.open_streams += 1
        try:
            return await answer(request, self)
        except asyncio.CancelledError:
            self.closed_by_client += 1
            raise
        finally:
            self.open_streams -= 1


@asynccontextmanager
async def scripted_upstream() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    app = web.Application(client_max_size=256 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", upstream.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        upstream.release.set()
        await runner.cleanup()


def event(document: dict[str, Any]) -> bytes:
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


def created(response_id: str = "resp_1") -> dict[str, Any]:
    response = {"id": response_id, "object": "response", "status": "in_progress", "output": []}
    return {"type": "response.created", "sequence_number": 0, "response": response}


def delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": text}


def item_done(text: str) -> dict[str, Any]:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def completed(response_id: str = "resp_1") -> dict[str, Any]:
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 18,
    }
    response = {"id": response_id, "object": "response", "status": "completed", "output": [], "usage": usage}
    return {"type": "response.completed", "sequence_number": 9, "response": response}


def failed(code: str, message: str = "no") -> dict[str, Any]:
    return {"type": "response.failed", "response": {"status": "failed", "error": {"code": code, "message": message}}}


RATE_LIMITS = {
    "type": "codex.rate_limits",
    "rate_limits": {"primary": {"used_percent": 40, "window_minutes": 300, "reset_at": 4_000_000_000}},
    "credits": {"has_credits": True, "unlimited": False, "balance": "5"},
}
TURN = [created(), delta("hel"), delta("lo"), item_done("hello"), completed()]


def stream(*parts: dict[str, Any] | bytes | str, headers: dict[str, str] | None = None) -> Answer:
    """An event stream. `"hang"` waits for the test's release, `"cut"` drops the connection."""

    async def answer(request: web.Request, upstream: ScriptedUpstream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for part in parts:
            if part == "hang":
                await upstream.release.wait()
            elif part == "cut":
                assert request.transport is not None
                request.transport.abort()
                return response
            else:
                await response.write(event(part) if isinstance(part, dict) else bytes(part))  # type: ignore[arg-type]
        return response

    return answer


def refusal(status: int, error: dict[str, Any] | None = None, **headers: str) -> Answer:
    async def answer(_request: web.Request, _upstream: ScriptedUpstream) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if error is None:
            return web.Response(status=status, text="<html>no</html>", headers=sent)
        return web.json_response({"error": error}, status=status, headers=sent)

    return answer


def document(content: Any, **headers: str) -> Answer:
    async def answer(_request: web.Request, _upstream: ScriptedUpstream) -> web.StreamResponse:
        return web.json_response(content, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def silence() -> Answer:
    async def answer(_request: web.Request, upstream: ScriptedUpstream) -> web.StreamResponse:
        await upstream.release.wait()
        return web.Response(status=500)

    return answer


def sockets(upstream: ScriptedUpstream, *turns: list[Any], headers: dict[str, str] | None = None) -> Answer:
    """Accepts sockets and answers their turns in the scripted order; the last answer goes on for ever.

    A part is an event, `"hang"`, `"close"` or `"cut"`; a string that begins with `{` is sent as it is.
    """
    upstream.socket_turns = deque(turns or [TURN])

    async def answer(request: web.Request, upstream: ScriptedUpstream) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        socket.headers.update(headers or {})
        await socket.prepare(request)
        upstream.sockets_opened += 1
        upstream.sockets_open += 1
        token = request.headers["authorization"].removeprefix("Bearer ")
        try:
            async for message in socket:
                frame = json.loads(message.data)
                upstream.frames.append((token, frame))
                if frame["type"] == "response.create":
                    script = upstream.socket_turns
                    await _play(request, upstream, socket, script.popleft() if len(script) > 1 else script[0])
        finally:
            upstream.sockets_open -= 1
        return socket

    return answer


async def _play(
    request: web.Request, upstream: ScriptedUpstream, socket: web.WebSocketResponse, parts: list[Any]
) -> None:
    for part in parts:
        if part == "hang":
            await upstream.release.wait()
        elif part == "close":
            await socket.close()
        elif part == "cut":
            assert request.transport is not None
            request.transport.abort()
        else:
            await socket.send_str(part if isinstance(part, str) else json.dumps(part))
