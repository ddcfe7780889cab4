"""Turns over a WebSocket: one JSON frame asks, one JSON frame an event answers.

Frames with a `stream_id` form lines of their own, which run side by side; within a line turns wait for one another. A
response can be continued by `previous_response_id` on the socket that made it, and nowhere else. Faults are those of
a frame's `client_metadata["x-simulate"]`, over those of the handshake's header, over those of the account.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import WSMessage, WSMsgType, web

from upstream_simulator.accounts import Account, Surface
from upstream_simulator.conversations import Conversations, PreviousResponseNotFound
from upstream_simulator.faults import Faults
from upstream_simulator.incoming import Refused, obey, read_faults, refusal_for
from upstream_simulator.refusals import Refusal, error
from upstream_simulator.responses import Json, incomplete_event
from upstream_simulator.script import Ending, Script
from upstream_simulator.turns import RefusalOf, Taken, Turns

LARGEST_FRAME = 16 * 1024 * 1024
_REMEMBERED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between the strict backend and the lenient service."""

    refusal_of: RefusalOf
    telemetry: Callable[[Json], Sequence[Json]]


class Sockets:
    """Accepts sockets for accounts that were authenticated already."""

    def __init__(self, *, turns: Turns) -> None:
        self._turns = turns

    async def serve(
        self, request: web.Request, account: Account, *, dialect: Dialect, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Accepts the handshake and serves until either side closes. Raises `Refused` when a fault refuses it."""
        wished = read_faults(request.headers.get("x-simulate", ""))
        if wished.over(account.next_faults(Surface.RESPONSES)).refuses_handshake:
            await obey(wished.over(account.take_faults(Surface.RESPONSES)), account, self._turns.clock())
        websocket = web.WebSocketResponse(max_msg_size=LARGEST_FRAME, compress=False)
        if not websocket.can_prepare(request).ok:
            raise web.HTTPMethodNotAllowed("GET", ["POST"])
        websocket.headers.update(headers)
        await websocket.prepare(request)
        with self._turns.stats.socket(account.id):
            await _Socket(
                request=request,
                websocket=websocket,
                account=account,
                dialect=dialect,
                turns=self._turns,
                wished=wished,
            ).run()
        return websocket


@dataclass(slots=True)
class _Line:
    """Turns that wait for one another."""

    waiting: asyncio.Queue[tuple[Json, int]] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, kw_only=True)
class _Socket:
    """One open socket."""

    request: web.Request
    websocket: web.WebSocketResponse
    account: Account
    dialect: Dialect
    turns: Turns
    wished: Faults
    conversations: Conversations = field(default_factory=lambda: Conversations(most=_REMEMBERED))
    lines: dict[str | None, _Line] = field(default_factory=dict)

    async def run(self) -> None:
        """Reads frames until the socket ends; then ends the turns."""
        try:
            async for message in self.websocket:
                await self._take(message)
        finally:
            tasks = [line.task for line in self.lines.values() if line.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, message: WSMessage) -> None:
        if message.type is not WSMsgType.TEXT:
            await self._refuse(_not_understood("Only text frames are understood."), None)
            return
        try:
            frame = orjson.loads(message.data)
        except orjson.JSONDecodeError:
            await self._refuse(_not_understood("The frame is not JSON."), None)
            return
        if not isinstance(frame, dict):
            await self._refuse(_not_understood("The frame is not a JSON object."), None)
            return
        line = self._line(frame.get("stream_id"))
        match frame.get("type"):
            case "response.create":
                line.waiting.put_nowait((frame, len(message.data)))
            case "response.cancel":
                line.cancelled = True
            case "response.steer":
                pass
            case unknown:
                await self._refuse(_not_understood(f"Unknown frame type: {unknown!r}"), frame.get("stream_id"))

    def _line(self, stream_id: Any) -> _Line:
        name = stream_id if isinstance(stream_id, str) else None
        line = self.lines.get(name)
        if line is None:
            line = self.lines[name] = _Line()
            line.task = asyncio.create_task(self._serve_line(line, name))
        return line

    async def _serve_line(self, line: _Line, stream_id: str | None) -> None:
        while True:
            frame, size = await line.waiting.get()
            line.cancelled = False
            with self.turns.stats.stream(self.account.id):
                try:
                    await self._turn(frame, size, line, stream_id)
                except Refused as refused:
                    await self._refuse(refused.refusal, stream_id)
                except PreviousResponseNotFound as unknown:
                    await self._refuse(unknown.refusal, stream_id)
                except ConnectionError:
                    return

    async def _turn(self, frame: Json, size: int, line: _Line, stream_id: str | None) -> None:
        body = {key: value for key, value in frame.items() if key not in {"type", "stream_id"}}
        self.turns.stats.turn(
            account=self.account.id,
            transport="websocket",
            path=self.request.path,
            headers=self.request.headers,
            body=body,
            size=size,
        )
        faults = self._faults(body)
        if faults.hangs_at_once:
            await asyncio.Event().wait()
        refusal = refusal_for(faults, self.account, self.turns.clock()) or self.dialect.refusal_of(body)
        if refusal is not None:
            raise Refused(refusal)
        script = self.turns.script(
            self.account,
            Taken(body=body, size=size, faults=faults),
            conversations=self.conversations,
            telemetry=self.dialect.telemetry(body),
        )
        await self._play(script, line, stream_id)

    def _faults(self, body: Json) -> Faults:
        metadata = body.get("client_metadata")
        wish = metadata.get("x-simulate") if isinstance(metadata, dict) else None
        own = read_faults(wish) if isinstance(wish, str) else Faults()
        return own.over(self.wished).over(self.account.take_faults(Surface.RESPONSES))

    async def _play(self, script: Script, line: _Line, stream_id: str | None) -> None:
        for number, event in enumerate(script.events):
            pause = script.pause_before(number)
            if pause:
                await asyncio.sleep(pause)
            if line.cancelled:
                await self._send(_cancelled(script, number), stream_id)
                return
            await self._send(event, stream_id)
        match script.ending:
            case Ending.SILENCE:
                await asyncio.Event().wait()
            case Ending.CUT:
                if self.request.transport is not None:
                    self.request.transport.close()
            case Ending.CLOSE:
                await self.websocket.close(code=script.close_code, message=b"simulated")
            case Ending.ORDERLY:
                pass

    async def _refuse(self, refusal: Refusal, stream_id: str | None) -> None:
        await self._send(refusal.as_frame(), stream_id)

    async def _send(self, event: Json, stream_id: str | None) -> None:
        addressed = event if stream_id is None else {**event, "stream_id": stream_id}
        await self.websocket.send_str(orjson.dumps(addressed).decode())


def _not_understood(sentence: str) -> Refusal:
    return error(400, code="invalid_request_error", message=sentence)


def _cancelled(script: Script, number: int) -> Json:
    return incomplete_event(
        response_id=script.response_id, created_at=script.created_at, reason="cancelled", sequence_number=number
    )
