"""The Codex backend under `/backend-api`: turns, models, usage, and the start-up calls of the CLI. Strict.

Every call needs a live access token together with the `chatgpt-account-id` it belongs to.
"""

from collections.abc import Callable
from functools import partial

from aiohttp import web

from upstream_simulator.accounts import Account, AccountBook, Surface
from upstream_simulator.catalogue import codex_models
from upstream_simulator.conversations import Conversations
from upstream_simulator.incoming import Refused, bearer_of, faults_for, obey_whole
from upstream_simulator.outgoing import json_answer, play
from upstream_simulator.refusals import detail, error
from upstream_simulator.responses import Json
from upstream_simulator.sockets import Dialect, Sockets
from upstream_simulator.strictness import (
    refusal_of_compact_endpoint,
    refusal_of_handshake,
    refusal_of_http_turn,
    refusal_of_socket_turn,
)
from upstream_simulator.tokens import TokenRejected
from upstream_simulator.turns import Turns
from upstream_simulator.turnstates import TurnStates


class Backend:
    """The HTTP side of the backend."""

    def __init__(
        self,
        *,
        accounts: AccountBook,
        turns: Turns,
        sockets: Sockets,
        turn_states: TurnStates,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._turns = turns
        self._sockets = sockets
        self._turn_states = turn_states
        self._clock = clock
        self._conversations = Conversations(most=256)

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes of this part."""
        return [
            web.post("/backend-api/codex/responses", self.create_response),
            web.get("/backend-api/codex/responses", self.socket, allow_head=False),
            web.post("/backend-api/codex/responses/compact", self.compact),
            web.get("/backend-api/codex/models", self.models),
            web.get("/backend-api/wham/usage", self.usage),
            web.get("/backend-api/wham/accounts/check", self.accounts_check),
        ]

    async def create_response(self, request: web.Request) -> web.StreamResponse:
        """Answers a turn as a stream of events."""
        account = self._authenticated(request)
        with self._turns.stats.stream(account.id):
            taken = await self._turns.take(request, account, refusal_of_http_turn)
            script = self._turns.script(account, taken, conversations=self._conversations)
            on_sent = partial(self._turns.stats.answer, script.response_id)
            return await play(script, request, self._answer_headers(request, account), on_sent=on_sent)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Answers turns over a WebSocket, for a client that asks for this version of the protocol."""
        account = self._authenticated(request)
        refusal = refusal_of_handshake(request.headers.getall("openai-beta", []))
        if refusal is not None:
            raise Refused(refusal)
        headers = self._answer_headers(request, account)

        def telemetry(body: Json) -> list[Json]:
            metadata = body.get("client_metadata")
            sent = metadata.get("x-codex-turn-state") if isinstance(metadata, dict) else None
            turn_state = self._turn_states.continued(account.id, sent or headers["x-codex-turn-state"])
            return [
                account.usage.as_event(self._clock()),
                {"type": "response.metadata", "headers": {"x-codex-turn-state": turn_state}},
            ]

        dialect = Dialect(refusal_of=refusal_of_socket_turn, telemetry=telemetry)
        return await self._sockets.serve(request, account, dialect=dialect, headers=headers)

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """Answers the older compaction call, which is not a stream."""
        account = self._authenticated(request)
        with self._turns.stats.stream(account.id):
            taken = await self._turns.take(request, account, refusal_of_compact_endpoint)
            return json_answer(self._turns.compaction(account, taken), headers=self._answer_headers(request, account))

    async def models(self, request: web.Request) -> web.StreamResponse:
        """Lists the models, as Codex wants them. The version of the client is required."""
        account = self._authenticated(request)
        await obey_whole(faults_for(request, account, Surface.MODELS), account, self._clock())
        if not request.query.get("client_version"):
            raise Refused(error(400, code="missing_required_parameter", param="client_version"))
        return json_answer({"models": codex_models()}, headers={"etag": '"simulated-1"'})

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """Tells how much of the account's windows is used."""
        account = self._authenticated(request)
        await obey_whole(faults_for(request, account, Surface.USAGE), account, self._clock())
        return json_answer(account.usage.as_payload(self._clock()))

    async def accounts_check(self, request: web.Request) -> web.StreamResponse:
        """Tells the CLI which workspace it talks to."""
        account = self._authenticated(request)
        return json_answer(
            {
                "accounts": [
                    {
                        "id": account.chatgpt_account_id,
                        "workspace_backend_origin": "https://chatgpt.com",
                        "account_routing_override": "NO_CONSTRAINT",
                        "plan_type": account.plan,
                    }
                ]
            }
        )

    def _authenticated(self, request: web.Request) -> Account:
        """Returns the account of a request. Raises `Refused` without a live token or with another account's id."""
        token = bearer_of(request)
        if not token:
            raise Refused(detail(401, "Unauthorized"))
        try:
            account = self._accounts.by_access_token(token)
        except TokenRejected as rejected:
            raise Refused(error(401, code=rejected.code)) from None
        if request.headers.get("chatgpt-account-id") != account.chatgpt_account_id:
            raise Refused(detail(401, "Unauthorized"))
        return account

    def _answer_headers(self, request: web.Request, account: Account) -> dict[str, str]:
        """Returns the headers of a turn's answer: rate limits, turn state, a cookie as the real front sets one."""
        return {
            **account.usage.as_headers(self._clock()),
            "x-codex-turn-state": self._turn_states.continued(account.id, request.headers.get("x-codex-turn-state")),
            "x-request-id": self._turns.new_id("req"),
            "openai-processing-ms": "1",
            "set-cookie": "__cf_bm=simulated; path=/; HttpOnly",
        }
