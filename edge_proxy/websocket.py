"""The life of a client's WebSocket, from top to bottom.

identify (handshake only) → lane for the socket's life → accept → read frames for as long as it lives: turns go to the
end of their line, other frames to their line's upstream socket. The client is always being read, so pings are answered
and a disconnect is seen at once. A socket without a turn and without client traffic is closed 1001 and its seat comes
back; a draining edge closes it 1012 as soon as its turns are over.
"""

import asyncio
from typing import Any

import structlog

from admission_client.errors import AdmissionError
from edge_proxy.auth import Client, check_origin, identify
from edge_proxy.client_socket import ClientSocket
from edge_proxy.errors import BodyMalformed, ClientGone, EdgeError, refusal_of
from edge_proxy.exchange import Request
from edge_proxy.frames import CREATE, ClientFrame
from edge_proxy.line import Line, LineParts
from edge_proxy.routes import Route, match

log = structlog.get_logger(__name__)

IDLE, RESTARTING, BROKEN = 1001, 1012, 1011
_LAST_LOOK = 0.05
"""Seconds to look for a frame that is on its way while an idle socket is about to be closed."""


class _SocketEnds(Exception):
    """We end the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SocketProxy:
    """Serves WebSockets."""

    def __init__(self, parts: LineParts) -> None:
        self._parts = parts
        allowed = parts.settings.allowed_origins.lower().split(",")
        self._origins = frozenset(origin.strip() for origin in allowed if origin.strip())

    async def serve(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serves one socket from its handshake to its end."""
        request = Request.of(scope)
        settings = self._parts.settings
        client = ClientSocket(request, receive, send, write_timeout=settings.client_write_timeout)
        await receive()  # "websocket.connect": ASGI wants it taken before an answer
        lane = ""
        try:
            self._parts.drain.check()
            route = match("GET", request.raw_path, websocket=True)
            lane = route.lane
            check_origin(request.headers, self._origins)
            owner = identify(request.headers, request.peer, keyless=settings.keyless == "loopback")
            async with self._parts.admission.acquire(
                [lane], key_sha256=owner.key_sha256, peer=owner.peer, label=request.request_id[:64]
            ) as seat:
                await client.accept()
                with self._parts.metrics.sockets_in_flight.track_inprogress():
                    await _Socket(self._parts, client, owner, route, seat.key_id).run()
        except ClientGone:
            return
        except (EdgeError, AdmissionError) as error:
            refusal = refusal_of(error, lane=lane, user_agent=request.user_agent)
            self._parts.metrics.refusals_of(refusal.lane, refusal.reason).inc()
            log.info(
                "handshake refused",
                request_id=request.request_id,
                lane=refusal.lane,
                status=refusal.status,
                code=refusal.code,
            )
            await client.refuse(refusal)
        finally:
            client.patience.close()


class _Socket:
    def __init__(self, parts: LineParts, client: ClientSocket, owner: Client, route: Route, key_id: str) -> None:
        self._parts = parts
        self._client = client
        self._owner = owner
        self._route = route
        self._key_id = key_id
        self._lines: dict[str, Line] = {}
        """The one that has served last is the last."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._turns = 0
        self._last_traffic = parts.clock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def run(self) -> None:
        """Serves until either side ends the socket. Everything it held is back when this returns."""
        ending: _SocketEnds | None = None
        try:
            with self._parts.drain.running(_nothing):
                async with asyncio.TaskGroup() as self._group:
                    self._group.create_task(self._reclaim_when_idle())
                    self._group.create_task(self._leave_when_draining())
                    await self._read()
        except* ClientGone:
            pass
        except* _SocketEnds as ends:
            ending = _first_of(ends)
        except* Exception:
            log.exception("socket failed", request_id=self._client.request.request_id)
            ending = _SocketEnds(BROKEN, "internal error")
        finally:
            for line in self._lines.values():
                line.abandon()
        if ending is not None:
            await self._client.close(ending.code, ending.reason)

    async def _read(self) -> None:
        while True:
            text = await self._client.frame()
            self._last_traffic = self._parts.clock()
            try:
                await self._take(ClientFrame.of(text))
            except ClientGone:
                raise
            except EdgeError as error:
                await self._client.tell(refusal_of(error).frame())

    async def _take(self, frame: ClientFrame) -> None:
        line = self._lines.get(frame.stream_id)
        try:
            if frame.kind == CREATE:
                self._parts.drain.check()
                self._enqueue(line or self._new_line(frame.stream_id), frame)
            elif line is None or not line.pass_on(frame.text):
                raise BodyMalformed(f"No response is running that a {frame.kind!r} could be for.")
        except ClientGone:
            raise
        except EdgeError as error:
            user_agent = self._client.request.user_agent
            await self._client.tell(
                refusal_of(error, lane=self._route.lane, user_agent=user_agent).frame(), frame.stream_id
            )

    def _new_line(self, stream_id: str) -> Line:
        if len(self._lines) >= self._parts.settings.lines_per_socket:
            self._end_an_idle_line()
        line = Line(self._parts, self._client, self._owner, self._route, stream_id, on_quiet=self._note_quiet)
        self._lines[stream_id] = line
        self._running[stream_id] = self._group.create_task(line.run())
        return line

    def _end_an_idle_line(self) -> None:
        idle = next((name for name, line in self._lines.items() if not line.busy), None)
        if idle is None:
            raise BodyMalformed(f"A socket has at most {self._parts.settings.lines_per_socket} lines at a time.")
        del self._lines[idle]
        self._running.pop(idle).cancel()

    def _enqueue(self, line: Line, frame: ClientFrame) -> None:
        if line.waiting >= self._parts.settings.turns_per_line:
            raise BodyMalformed(f"A line has at most {self._parts.settings.turns_per_line} waiting turns.")
        self._turns += 1
        record = self._parts.access.open(f"{self._client.request.request_id}.{self._turns}", transport="websocket")
        turn = frame.turn()
        record.route, record.lane, record.key_id = self._route.name, self._route.lane, self._key_id
        record.model, record.bytes_in, record.status = turn.model, len(frame.text), 101
        line.enqueue(frame, turn, record)
        self._lines[line.stream_id] = self._lines.pop(line.stream_id)
        self._quiet.clear()

    # --- The ends that we make.

    def _note_quiet(self) -> None:
        self._last_traffic = self._parts.clock()
        if not any(line.busy for line in self._lines.values()):
            self._quiet.set()

    async def _reclaim_when_idle(self) -> None:
        limit = self._parts.settings.idle_timeout
        while True:
            await self._quiet.wait()
            left = self._last_traffic + limit - self._parts.clock()
            await asyncio.sleep(max(left, _LAST_LOOK))  # a frame that is here already is read meanwhile, and counts
            if self._quiet.is_set() and self._parts.clock() - self._last_traffic >= limit:
                raise _SocketEnds(IDLE, "idle timeout")

    async def _leave_when_draining(self) -> None:
        await self._parts.drain.begun.wait()
        await self._quiet.wait()
        raise _SocketEnds(RESTARTING, "this edge is stopping")


def _first_of(group: BaseExceptionGroup[_SocketEnds]) -> _SocketEnds:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _nothing(_error: EdgeError) -> None:
    """The socket itself is not interrupted: it leaves by itself as soon as its turns are over."""
