"""The life of an HTTP request, from top to bottom.

identify and classify (head only) → lane → read the body → work → send → forward while watching → settle → give back.
A lane may be held while waiting for work; work is never held while waiting for anything, so every retry begins with
empty hands. The upstream's answer is closed before its seats are released: blocks nest in that order.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from admission_client.errors import AdmissionError, AdmissionUnavailable, Denied
from admission_client.lease import AccountNeeds, Admission
from edge_proxy.access import AccessLog, AccessRecord
from edge_proxy.answers import Answers, Forward, Try
from edge_proxy.attempts import Attempts, RetryBudget, TryFailed
from edge_proxy.auth import Client, identify, upstream_account_of
from edge_proxy.body import Body, BodyReader
from edge_proxy.control import ControlApi
from edge_proxy.drain import Drain
from edge_proxy.errors import ClientGone, ControlUnavailable, EdgeError, RouteNotFound, UpstreamFailed, refusal_of
from edge_proxy.exchange import Exchange, Request
from edge_proxy.headers import upstream_headers
from edge_proxy.metrics import EdgeMetrics
from edge_proxy.outcome import judge_trouble
from edge_proxy.payload import Prepare, compaction_payload, turn_payload, untouched
from edge_proxy.pool_usage import PoolUsage
from edge_proxy.relay import end_stream
from edge_proxy.reports import AccountReporter
from edge_proxy.routes import Answerer, Dialect, Route, match
from edge_proxy.settings import EdgeSettings
from edge_proxy.sse import json_object
from edge_proxy.turn import COMPACT_RESPONSE_CREATE, RESPONSE_CREATE, TurnWatch, affinity_keys, turn_resources
from edge_proxy.upstream import Upstream

log = structlog.get_logger(__name__)

_COMPACT_LANE = "lanes/proxy_compact"
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that has its lane."""

    exchange: Exchange
    record: AccessRecord
    route: Route
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a request needs of an account, and how the account's answer goes on to the client."""

    resources: tuple[str, ...]
    needs: AccountNeeds
    forward: Forward
    body: Body | None = None
    prepare: Prepare = untouched
    accept: str = "application/json"


class HttpProxy:
    """Serves HTTP requests."""

    def __init__(
        self,
        *,
        settings: EdgeSettings,
        admission: Admission,
        upstream: Upstream,
        control: ControlApi | None,
        pool: PoolUsage,
        bodies: BodyReader,
        retries: RetryBudget,
        metrics: EdgeMetrics,
        access: AccessLog,
        drain: Drain,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._upstream = upstream
        self._control = control
        self._bodies = bodies
        self._retries = retries
        self._metrics = metrics
        self._access = access
        self._drain = drain
        self._clock = clock
        self._keyless = settings.keyless == "loopback"
        self._answers = Answers(settings, metrics, access, pool)
        self._answerers: dict[Answerer, Callable[[_Asked], Awaitable[None]]] = {
            Answerer.TURN: self._turn,
            Answerer.COMPACT: self._compact,
            Answerer.PLAIN: self._plain,
            Answerer.MODELS: self._models,
            Answerer.USAGE: self._usage,
        }

    async def serve(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serves one request to its end, whichever that is."""
        request = Request.of(scope)
        exchange = Exchange(request, receive, send, write_timeout=self._settings.client_write_timeout)
        record = self._access.open(request.request_id)
        try:
            with self._metrics.http_in_flight.track_inprogress():
                await self._answer_or_refuse(exchange, record)
        except ClientGone:
            record.outcome = record.outcome or "client_gone"
        finally:
            exchange.close()
            record.status = exchange.status
            record.bytes_out = exchange.bytes_out
            record.outcome = record.outcome or ("completed" if exchange.finished else "cancelled")
            self._access.close(record)

    async def _answer_or_refuse(self, exchange: Exchange, record: AccessRecord) -> None:
        try:
            async with exchange:
                with self._drain.running(exchange.interrupt):
                    await self._answer(exchange, record)
        except ClientGone:
            raise
        except (EdgeError, AdmissionError) as error:
            await self._refuse(exchange, record, error)
        except Exception as error:
            log.exception("request failed", request_id=record.request_id, route=record.route)
            await self._refuse(exchange, record, error)

    async def _refuse(self, exchange: Exchange, record: AccessRecord, error: Exception) -> None:
        refusal = refusal_of(error, lane=record.lane, user_agent=exchange.request.user_agent)
        record.code = refusal.code
        record.outcome = "upstream_error" if refusal.reason == "upstream" else "refused"
        self._metrics.refusals_of(refusal.lane, refusal.reason).inc()
        if not exchange.started:
            await exchange.respond(refusal.status, refusal.headers(), refusal.envelope())
        elif not exchange.finished:
            record.outcome = "repaired"
            self._metrics.repaired_streams.inc()
            route = match(exchange.request.method, exchange.request.raw_path)
            await end_stream(exchange, refusal, plain=route.answerer is Answerer.PLAIN)

    async def _answer(self, exchange: Exchange, record: AccessRecord) -> None:
        request = exchange.request
        self._drain.check()
        route = match(request.method, request.raw_path)
        record.route = route.name
        if route.answerer is Answerer.ACCOUNTS_CHECK:
            await _check_accounts(exchange)
            return
        record.lane = _lane_of(route, request)
        client = identify(request.headers, request.peer, keyless=self._keyless)
        began = self._clock()
        async with self._admission.acquire(
            [record.lane], key_sha256=client.key_sha256, peer=client.peer, label=request.request_id[:64]
        ) as seat:
            record.admission_wait = self._clock() - began
            record.key_id = seat.key_id
            await self._answerers[route.answerer](_Asked(exchange, record, route, client))

    # Who answers, and what that takes.

    async def _turn(self, asked: _Asked) -> None:
        async with self._bodies.read(asked.exchange, limit=asked.route.body_limit) as body:
            self._take_note(asked, body)
            folded = asked.route.dialect is Dialect.OPENAI and not body.turn.stream
            work = _Work(
                resources=turn_resources(body.turn.stage, with_key=asked.client.key_sha256 is not None),
                needs=body.turn.needs(asked.exchange.request.headers, kind=asked.route.kind),
                forward=self._answers.fold_turn if folded else self._answers.forward_turn,
                body=body,
                prepare=turn_payload,
                accept=_EVENT_STREAM,
            )
            await self._do(asked, work)

    async def _compact(self, asked: _Asked) -> None:
        async with self._bodies.read(asked.exchange, limit=asked.route.body_limit) as body:
            self._take_note(asked, body)
            work = _Work(
                resources=turn_resources(COMPACT_RESPONSE_CREATE, with_key=asked.client.key_sha256 is not None),
                needs=body.turn.needs(asked.exchange.request.headers),
                forward=self._answers.fold_compaction,
                body=body,
                prepare=compaction_payload,
                accept=_EVENT_STREAM,
            )
            await self._do(asked, work)

    async def _plain(self, asked: _Asked) -> None:
        async with self._bodies.read(asked.exchange, limit=asked.route.body_limit) as body:
            self._take_note(asked, body)
            work = _Work(
                resources=turn_resources(RESPONSE_CREATE, with_key=asked.client.key_sha256 is not None),
                needs=body.turn.needs(asked.exchange.request.headers, kind=asked.route.kind),
                forward=self._answers.pass_on,
                body=body,
                accept=asked.exchange.request.headers.get("accept", "application/json"),
            )
            await self._do(asked, work)

    async def _models(self, asked: _Asked) -> None:
        headers = asked.exchange.request.headers
        asked.exchange.watch()
        work = _Work(
            resources=turn_resources("", with_key=asked.client.key_sha256 is not None),
            needs=AccountNeeds(affinity_keys=affinity_keys(headers, "")),
            forward=self._answers.show_models,
        )
        await self._do(asked, work)

    async def _usage(self, asked: _Asked) -> None:
        if self._control is None:
            raise RouteNotFound
        asked.exchange.watch()
        path = asked.exchange.request.raw_path.decode("ascii").rstrip("/")
        status, content = await self._control.usage(
            path, key_sha256=asked.client.key_sha256, request_id=asked.record.request_id
        )
        if status in {429, 503}:  # its words are for the edge; the client is told when to come back
            raise ControlUnavailable
        await asked.exchange.respond(status, [(b"content-type", b"application/json")], content)

    @staticmethod
    def _take_note(asked: _Asked, body: Body) -> None:
        asked.exchange.watch()
        asked.record.model = body.turn.model
        asked.record.bytes_in = len(body.raw)

    # Work: as many tries as the attempts allow, each with an account and seats of its own.

    async def _do(self, asked: _Asked, work: _Work) -> None:
        attempts = Attempts(work.needs, self._retries)
        while True:
            try:
                await self._try(asked, work, attempts)
            except (TryFailed, Denied) as failure:
                if error := attempts.verdict_on(failure):
                    raise error from failure
                self._metrics.retries.labels(attempts.why).inc()
            else:
                return

    async def _try(self, asked: _Asked, work: _Work, attempts: Attempts) -> None:
        client, record = asked.client, asked.record
        began = self._clock()
        async with self._admission.acquire(
            work.resources,
            key_sha256=client.key_sha256,
            peer=client.peer,
            account=attempts.needs,
            max_wait=attempts.max_wait,
            label=record.request_id[:64],
        ) as grant:
            record.admission_wait += self._clock() - began
            account = grant.account
            if not grant.live:
                raise AdmissionUnavailable("the admission session has lapsed")
            if account is None:
                raise RuntimeError("a grant of account seats came without an account")
            record.account_id = account.account_id
            record.attempts += 1
            watch = TurnWatch()
            reporter = AccountReporter(self._admission, account, client, watch, suspect=attempts.suspect)
            this = Try(asked.exchange, record, asked.route, client, grant, account, work.body, watch, reporter)
            try:
                await self._send(this, work)
            except UpstreamFailed as error:
                verdict = judge_trouble(error.trouble)
                reporter.settle(verdict)
                if not watch.visible:
                    raise TryFailed(verdict, account, error) from error
                raise
            finally:
                reporter.settle_neutrally()

    async def _send(self, this: Try, work: _Work) -> None:
        request, account, body = this.exchange.request, this.account, this.body
        content: bytes | None = None
        encoding = ""
        if body is not None:
            payload = work.prepare(this.route, account.kind, body)
            content, encoding = payload.content, payload.encoding
        headers = upstream_headers(
            request.raw_headers,
            account,
            request_id=request.request_id,
            accept=work.accept,
            content_encoding=encoding,
            responses_lite=body is not None and body.turn.responses_lite,
            forward_simulate=self._settings.forward_simulate,
        )
        url = f"{account.base_url}{this.route.target(account.kind)}"
        if this.route.answerer is Answerer.MODELS:
            url = f"{url}?{self._models_query(request)}"
        began = self._clock()
        async with self._upstream.send(
            request.method,
            url,
            headers,
            content,
            private=account.private_upstream,
            patience=this.exchange.patience,
        ) as response:
            this.record.upstream_head = self._clock() - began
            this.reporter.headers = response.headers
            await self._answers.forward(this, response, work.forward)

    def _models_query(self, request: Request) -> str:
        # The backend wants to know the client's version, and shows only models that it can use.
        return request.query.decode("latin-1") or f"client_version={self._settings.models_client_version}"


def _lane_of(route: Route, request: Request) -> str:
    """Returns the lane of a request. A compaction inside `/responses` says so in its metadata header."""
    metadata = request.headers.get("x-codex-turn-metadata", "")
    if route.answerer is not Answerer.TURN or "compaction" not in metadata:
        return route.lane
    return _COMPACT_LANE if json_object(metadata).get("request_kind") == "compaction" else route.lane


async def _check_accounts(exchange: Exchange) -> None:
    account = upstream_account_of(exchange.request.headers)
    entry = {
        "id": account,
        "workspace_backend_origin": "https://chatgpt.com",
        "account_routing_override": "NO_CONSTRAINT",
    }
    await exchange.respond(200, [(b"content-type", b"application/json")], orjson.dumps({"accounts": [entry]}))
