"""An upstream's event stream on its way to the client: untouched, as it arrives, with a parser looking on.

Until the first event that the client has to see, bytes are held back, so that a turn that fails at once can go to
another account. From then on every chunk is forwarded as it comes; what the edge adds (keepalives in silence, an end
for a stream that has none) goes in between events only.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from edge_proxy.errors import Refusal, UpstreamFailed, UpstreamTrouble
from edge_proxy.exchange import Exchange
from edge_proxy.headers import client_headers
from edge_proxy.outcome import Action, Verdict, judge_event
from edge_proxy.sse import CODEX_KEEPALIVE, COMMENT_KEEPALIVE, EventTooLarge, SseEvent, SseParser
from edge_proxy.turn import TurnWatch, failure_event
from edge_proxy.upstream import UpstreamResponse

_AFTER_TERMINAL = 2.0
"""How long to wait for the end of a stream whose terminal event has come, for a `[DONE]` that may follow."""

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class FailedEarly(Exception):
    """The stream failed before the client had to see anything of it."""

    def __init__(self, verdict: Verdict, document: dict[str, Any]) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict
        self.document = document


class EventSource:
    """Reads a stream, shows its events to a watch, and keeps its time limits."""

    def __init__(
        self,
        response: UpstreamResponse,
        watch: TurnWatch,
        *,
        on_created: Callable[[], None],
        keepalive_interval: float,
        silence_timeout: float,
        deadline: float,
    ) -> None:
        self.watch = watch
        self.events: list[SseEvent] = []
        """Those that the last chunk completed."""
        self._response = response
        self._parser = SseParser()
        self._on_created = on_created
        self._interval = keepalive_interval
        self._silence_timeout = silence_timeout
        self._deadline = deadline
        self._clock = asyncio.get_running_loop().time
        self._silent_since = self._clock()
        self._over_at: float | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether an event may be put in here."""
        return self._parser.at_boundary

    async def next(self) -> bytes | None:
        """Returns the next chunk, b"" at the end, None after an interval of silence. Raises `UpstreamFailed`."""
        if self._over_at is not None:
            return await self._rest(self._over_at - self._clock())
        chunk = await self._response.chunk(within=self._interval)
        now = self._clock()
        if now >= self._deadline:
            raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The response took longer than a response may take.")
        if chunk is None:
            if now - self._silent_since >= self._silence_timeout:
                raise UpstreamFailed(UpstreamTrouble.SILENT, "The upstream has been silent for too long.")
            return None
        self._silent_since = now
        self._look_into(chunk)
        return chunk

    async def _rest(self, left: float) -> bytes:
        if left <= 0:
            return b""
        try:
            return await self._response.chunk(within=left) or b""
        except UpstreamFailed:  # the response is whole: how its stream ends does not matter
            return b""

    def _look_into(self, chunk: bytes) -> None:
        try:
            self.events = self._parser.feed(chunk)
        except EventTooLarge:
            raise UpstreamFailed(UpstreamTrouble.TOO_LARGE, "An event of the upstream is too large.") from None
        watch = self.watch
        created = watch.created
        for event in self.events:
            watch.observe(event.name, event.data)
            if watch.failure and not watch.seen_before_failure:
                self._give_another_try(watch.failure)
        if watch.created and not created:
            self._on_created()
        if watch.terminal:
            self._over_at = self._clock() + _AFTER_TERMINAL

    @staticmethod
    def _give_another_try(failure: dict[str, Any]) -> None:
        verdict = judge_event(failure)
        if verdict.action is not Action.SURFACE:
            raise FailedEarly(verdict, failure)


class PlainSource:
    """Reads a stream of another dialect without looking into it, and keeps its time limits."""

    def __init__(
        self, response: UpstreamResponse, *, keepalive_interval: float, silence_timeout: float, deadline: float
    ) -> None:
        self._response = response
        self._interval = keepalive_interval
        self._silence_timeout = silence_timeout
        self._deadline = deadline
        self._clock = asyncio.get_running_loop().time
        self._silent_since = self._clock()
        self._tail = b""

    @property
    def at_boundary(self) -> bool:
        """Whether a comment may be put in here."""
        return not self._tail or self._tail.endswith(_EVENT_ENDS)

    async def next(self) -> bytes | None:
        """Returns the next chunk, b"" at the end, None after an interval of silence. Raises `UpstreamFailed`."""
        chunk = await self._response.chunk(within=self._interval)
        now = self._clock()
        if now >= self._deadline:
            raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The response took longer than a response may take.")
        if chunk is None:
            if now - self._silent_since >= self._silence_timeout:
                raise UpstreamFailed(UpstreamTrouble.SILENT, "The upstream has been silent for too long.")
            return None
        self._silent_since = now
        self._tail = (self._tail + chunk[-4:])[-4:]
        return chunk


class StreamRelay:
    """Forwards one stream."""

    def __init__(
        self,
        exchange: Exchange,
        source: EventSource,
        headers: list[tuple[bytes, bytes]],
        *,
        on_first_byte: Callable[[], None],
        on_settled: Callable[[], None],
        on_keepalive: Callable[[], None],
    ) -> None:
        self._exchange = exchange
        self._source = source
        self._headers = headers
        self._on_first_byte = on_first_byte
        self._on_settled = on_settled
        self._on_keepalive = on_keepalive
        self._keepalive = CODEX_KEEPALIVE if exchange.request.is_codex else COMMENT_KEEPALIVE

    async def run(self) -> None:
        """Forwards the stream to its end. Raises `FailedEarly` or `UpstreamFailed` while nothing visible was sent.

        `on_settled` is called once the terminal event is known, before the client sees it, so that whatever the client
        asks next finds it settled.
        """
        held: list[bytes] = []
        watch = self._source.watch
        settled = False
        while (chunk := await self._source.next()) != b"":
            if chunk is None:
                await self._keep_alive(safe=self._source.at_boundary and not held)
                continue
            if not watch.visible:
                held.append(chunk)
                continue
            if watch.terminal and not settled:
                settled = True
                self._on_settled()
            if held:
                chunk = b"".join([*held, chunk])
                held = []
            await self._begin()
            await self._exchange.write(chunk)
        if not watch.terminal:
            raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream's stream ended before its response did.")
        await self._exchange.finish()

    async def _begin(self) -> None:
        if not self._exchange.started:
            self._on_first_byte()
            await self._exchange.start(200, self._headers)

    async def _keep_alive(self, *, safe: bool) -> None:
        # Held telemetry is forwarded later, as it came: a keepalive before it does no harm.
        if safe or not self._source.watch.visible:
            await self._begin()
            await self._exchange.write(self._keepalive)
            self._on_keepalive()


async def end_stream(exchange: Exchange, refusal: Refusal, *, plain: bool) -> None:
    """Gives a stream that has begun the end that it lacks: an event that clients understand.

    The blank line before it ends whatever event the upstream was cut in; between events it means nothing.
    `plain`: whether the stream is one of chat completions, whose clients look for an `error` in the data.
    """
    if plain:
        await exchange.finish(b"\n\ndata: %b\n\n" % orjson.dumps({"error": refusal.error}))
    else:
        await exchange.finish(b"\n\nevent: response.failed\ndata: %b\n\n" % failure_event(refusal.error))


async def fold(source: EventSource) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a stream to its end. Returns the final response, and the event that says why where it failed."""
    items: list[Any] = []
    final: dict[str, Any] = {}
    while (chunk := await source.next()) != b"":
        for event in source.events if chunk else ():
            if event.name == "response.output_item.done":
                items.append(event.document().get("item"))
            elif event.name in {"response.completed", "response.incomplete"}:
                final = event.document().get("response") or {}
        if source.watch.terminal:
            break
    if not source.watch.terminal:
        raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream's stream ended before its response did.")
    if not final.get("output"):  # the backend leaves it to the reader to collect the items
        final["output"] = items
    return final, source.watch.failure


def stream_headers(received: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers of a streamed answer: the upstream's, and what keeps buffers out of its way."""
    passed = client_headers(received)
    kept = [(name, value) for name, value in passed if name not in {b"cache-control", b"content-type"}]
    return [
        *kept,
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ]


def error_body(document: dict[str, Any]) -> bytes:
    """Returns a failure event as the body of an HTTP error."""
    response = document.get("response")
    error = response.get("error") if isinstance(response, dict) else document.get("error")
    if not isinstance(error, dict):
        error = {key: document[key] for key in ("code", "message", "param") if key in document}
    return orjson.dumps({"error": error})
