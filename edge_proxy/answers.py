"""How an account's answer goes on to the client: forwarded, folded into one object, or made into another shape.

Whatever does not succeed before the client has seen anything leaves here as `TryFailed`; whether there is another try
is not decided here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

import orjson

from admission_client.lease import Grant, GrantedAccount, TokenUsage
from edge_proxy.access import AccessLog, AccessRecord
from edge_proxy.attempts import TryFailed
from edge_proxy.auth import Client
from edge_proxy.body import Body
from edge_proxy.catalogue import models_answer
from edge_proxy.errors import EdgeError, UpstreamAnswered, UpstreamFailed, UpstreamTrouble
from edge_proxy.exchange import Exchange
from edge_proxy.headers import client_headers
from edge_proxy.metrics import EdgeMetrics
from edge_proxy.outcome import SUCCESS, Action, Verdict, judge_answer, judge_event, status_of, usage_in
from edge_proxy.pool_usage import PoolUsage
from edge_proxy.relay import EventSource, FailedEarly, PlainSource, StreamRelay, error_body, fold, stream_headers
from edge_proxy.reports import AccountReporter
from edge_proxy.routes import Dialect, Route
from edge_proxy.settings import EdgeSettings
from edge_proxy.sse import COMMENT_KEEPALIVE, json_object
from edge_proxy.turn import ACCOUNT_RESPONSE_CREATES, RESPONSE_CREATE, TurnWatch
from edge_proxy.upstream import UpstreamResponse

_LARGEST_ANSWER = 64 * 1024 * 1024
_TOKEN_COUNTS = tuple(count.name for count in fields(TokenUsage))
_JSON = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a request, with an account and its seats."""

    exchange: Exchange
    record: AccessRecord
    route: Route
    client: Client
    grant: Grant
    account: GrantedAccount
    body: Body | None
    watch: TurnWatch
    reporter: AccountReporter

    def accepted(self) -> None:
        """The upstream has taken the request: its creation holds up nobody else any more."""
        self.grant.release(RESPONSE_CREATE, ACCOUNT_RESPONSE_CREATES)

    def created(self) -> None:
        """The response exists, and there will be no other try: the body will not be sent again."""
        self.accepted()
        if self.body is not None:
            self.body.drop()


Forward = Callable[[Try, UpstreamResponse], Awaitable[None]]


class Answers:
    """The ways of an answer."""

    def __init__(self, settings: EdgeSettings, metrics: EdgeMetrics, access: AccessLog, pool: PoolUsage) -> None:
        self._settings = settings
        self._metrics = metrics
        self._access = access
        self._pool = pool

    async def forward(self, this: Try, response: UpstreamResponse, way: Forward) -> None:
        """Sends an answer on its way, if it is one. Raises `TryFailed` for an error that the client has not seen."""
        if response.status != 200:
            await self._refused(this, response)
        try:
            await way(this, response)
        except FailedEarly as failed:
            this.reporter.settle(failed.verdict)
            raise TryFailed(failed.verdict, this.account, answered(failed.verdict, failed.document)) from failed

    async def forward_turn(self, this: Try, response: UpstreamResponse) -> None:
        """Streams a turn."""
        if not response.is_event_stream:
            await self.pass_on(this, response)
            return
        source = self._source(this, response, self._settings.stream_timeout)
        relay = StreamRelay(
            this.exchange,
            source,
            self._pool.applied(stream_headers(response.raw_headers), this.client),
            on_first_byte=lambda: self._note_first_byte(this),
            on_settled=lambda: note_end(this.record, this.reporter, this.watch),
            on_keepalive=self._metrics.keepalives.inc,
        )
        await relay.run()

    async def fold_turn(self, this: Try, response: UpstreamResponse) -> None:
        """Collects a streamed turn into the one object that the client asked for."""
        if not response.is_event_stream:
            await self.pass_on(this, response)
            return
        final, failure = await fold(self._source(this, response, self._settings.stream_timeout))
        note_end(this.record, this.reporter, this.watch)
        await self._respond_folded(this, response, final, failure)

    async def fold_compaction(self, this: Try, response: UpstreamResponse) -> None:
        """Collects a compaction: exactly one item, or the client could not go on with it."""
        if not response.is_event_stream:
            await self.pass_on(this, response)
            return
        final, failure = await fold(self._source(this, response, self._settings.compact_timeout))
        note_end(this.record, this.reporter, this.watch)
        items = [item for item in final.get("output") or [] if _is_compaction(item)]
        if not failure and len(items) != 1:
            raise UpstreamFailed(UpstreamTrouble.MALFORMED, "The upstream did not answer with one compaction item.")
        answer: dict[str, Any] = {"object": "response.compaction"}
        for name in ("id", "status", "usage", "service_tier"):
            if final.get(name) is not None:
                answer[name] = final[name]
        answer["output"] = [{**item, "type": "compaction"} for item in items]
        await self._respond_folded(this, response, answer, failure)

    async def pass_on(self, this: Try, response: UpstreamResponse) -> None:
        """Passes an answer on as it comes, whatever it is: for upstreams that speak the client's own dialect."""
        this.accepted()
        if response.is_event_stream:
            await self._pass_stream(this, response)
            return
        content = await response.body(limit=_LARGEST_ANSWER, within=self._settings.silence_timeout)
        if this.exchange.started:  # keepalives of an earlier try: the client reads a stream
            raise UpstreamFailed(UpstreamTrouble.MALFORMED, "The upstream did not answer with a stream.")
        this.created()
        document = json_object(content)
        this.watch.usage = usage_in(document.get("usage"))
        identity = document.get("id")
        this.watch.response_id = identity if isinstance(identity, str) else ""
        self._note_first_byte(this)
        note_end(this.record, this.reporter, this.watch)
        await this.exchange.respond(200, client_headers(response.raw_headers), content)

    async def show_models(self, this: Try, response: UpstreamResponse) -> None:
        """Answers with the catalogue, in the asker's shape."""
        content = await response.body(limit=_LARGEST_ANSWER, within=self._settings.headers_timeout)
        note_end(this.record, this.reporter, this.watch)
        for_codex = this.route.dialect is Dialect.CODEX or b"client_version=" in this.exchange.request.query
        headers = [(name, value) for name, value in client_headers(response.raw_headers) if name == b"etag"]
        await this.exchange.respond(200, [*_JSON, *headers], models_answer(content, for_codex=for_codex))

    async def _refused(self, this: Try, response: UpstreamResponse) -> None:
        content = await response.body(within=self._settings.headers_timeout)
        verdict = judge_answer(response.status, response.headers, content)
        this.reporter.settle(verdict)
        error: EdgeError
        if response.status < 400 or (response.status == 404 and not verdict.code):
            error = UpstreamFailed(UpstreamTrouble.MALFORMED, f"The upstream answered {response.status}.")
        else:
            error = UpstreamAnswered(
                response.status,
                content if json_object(content) else b"",
                code=verdict.code,
                message=verdict.message,
                retry_after=verdict.resets_after,
            )
        raise TryFailed(verdict, this.account, error)

    def _source(self, this: Try, response: UpstreamResponse, longest: float) -> EventSource:
        return EventSource(
            response,
            this.watch,
            on_created=this.created,
            keepalive_interval=self._settings.keepalive_interval,
            silence_timeout=self._settings.silence_timeout,
            deadline=asyncio.get_running_loop().time() + longest,
        )

    async def _pass_stream(self, this: Try, response: UpstreamResponse) -> None:
        source = PlainSource(
            response,
            keepalive_interval=self._settings.keepalive_interval,
            silence_timeout=self._settings.silence_timeout,
            deadline=asyncio.get_running_loop().time() + self._settings.stream_timeout,
        )
        while (chunk := await source.next()) != b"":
            if chunk is None and not source.at_boundary:
                continue
            if chunk is not None and not this.watch.visible:
                this.watch.visible = True
                this.created()
            await self._begin_stream(this, response)
            await this.exchange.write(COMMENT_KEEPALIVE if chunk is None else chunk)
            if chunk is None:
                self._metrics.keepalives.inc()
        note_end(this.record, this.reporter, this.watch)
        await self._begin_stream(this, response)
        await this.exchange.finish()

    async def _begin_stream(self, this: Try, response: UpstreamResponse) -> None:
        if not this.exchange.started:
            self._note_first_byte(this)
            await this.exchange.start(200, stream_headers(response.raw_headers))

    async def _respond_folded(
        self, this: Try, response: UpstreamResponse, answer: dict[str, Any], failure: dict[str, Any]
    ) -> None:
        if failure:
            raise answered(judge_event(failure), failure)
        self._note_first_byte(this)
        headers = [(n, v) for n, v in client_headers(response.raw_headers) if n != b"content-type"]
        headers = self._pool.applied([*_JSON, *headers], this.client)
        await this.exchange.respond(200, headers, orjson.dumps(answer))

    def _note_first_byte(self, this: Try) -> None:
        if this.record.first_byte is None:
            this.record.first_byte = self._access.since(this.record)


def answered(verdict: Verdict, failure: dict[str, Any]) -> EdgeError:
    """Returns a failure that came as an event as if it had come as an answer.

    Never as 401 or 403: the client would take them for its own credential.
    """
    status = status_of(verdict)
    if verdict.action is Action.REAUTHENTICATE or status in {401, 403}:
        return UpstreamFailed(UpstreamTrouble.UNAUTHORISED, "The upstream does not accept the account's sign-in.")
    return UpstreamAnswered(
        status,
        error_body(failure),
        code=verdict.code,
        message=verdict.message,
        retry_after=verdict.resets_after,
    )


def note_end(record: AccessRecord, reporter: AccountReporter, watch: TurnWatch) -> None:
    """Settles a try whose response has come to its end, good or bad."""
    verdict = judge_event(watch.failure) if watch.failed else SUCCESS
    reporter.settle(verdict)
    record.outcome = "failed" if watch.failed else "completed"
    record.code = verdict.code
    if watch.usage is not None:
        told = {name: getattr(watch.usage, name) for name in _TOKEN_COUNTS}
        record.tokens = {name: count for name, count in told.items() if count}


def _is_compaction(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") in {"compaction", "compaction_summary"}
