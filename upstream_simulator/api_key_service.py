"""An OpenAI-compatible service under `/v1`, for accounts that are an API key. Lenient: unknown parameters are fine."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import orjson
from aiohttp import web

from upstream_simulator.accounts import Account, AccountBook, Surface
from upstream_simulator.catalogue import openai_models
from upstream_simulator.conversations import Conversations
from upstream_simulator.incoming import Refused, bearer_of, faults_for, json_body, obey_whole
from upstream_simulator.outgoing import break_off, json_answer, open_event_stream, play
from upstream_simulator.refusals import error
from upstream_simulator.responses import Json
from upstream_simulator.script import Ending, Script
from upstream_simulator.sockets import Dialect, Sockets
from upstream_simulator.strictness import malformed
from upstream_simulator.tokens import TokenRejected
from upstream_simulator.turns import Turns

_DIMENSIONS = 8


class ApiKeyService:
    """The HTTP side of the service."""

    def __init__(self, *, accounts: AccountBook, turns: Turns, sockets: Sockets, clock: Callable[[], float]) -> None:
        self._accounts = accounts
        self._turns = turns
        self._sockets = sockets
        self._clock = clock
        self._conversations = Conversations(most=256)

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes of this part."""
        return [
            web.post("/v1/responses", self.create_response),
            web.get("/v1/responses", self.socket, allow_head=False),
            web.post("/v1/responses/compact", self.compact),
            web.post("/v1/chat/completions", self.chat_completion),
            web.post("/v1/embeddings", self.embeddings),
            web.get("/v1/models", self.models),
        ]

    async def create_response(self, request: web.Request) -> web.StreamResponse:
        """Answers a turn, streamed or whole as its body wishes."""
        account = self._authenticated(request)
        with self._turns.stats.stream(account.id):
            taken = await self._turns.take(request, account, malformed)
            script = self._turns.script(account, taken, conversations=self._conversations)
            headers = {"x-request-id": self._turns.new_id("req"), "openai-processing-ms": "1"}
            if taken.body.get("stream") is True:
                on_sent = partial(self._turns.stats.answer, script.response_id)
                return await play(script, request, headers, on_sent=on_sent)
            return await self._whole(script, request, headers)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Answers turns over a WebSocket."""
        account = self._authenticated(request)
        dialect = Dialect(refusal_of=malformed, telemetry=lambda _: ())
        headers = {"x-request-id": self._turns.new_id("req")}
        return await self._sockets.serve(request, account, dialect=dialect, headers=headers)

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """Answers the older compaction call."""
        account = self._authenticated(request)
        with self._turns.stats.stream(account.id):
            taken = await self._turns.take(request, account, malformed)
            return json_answer(self._turns.compaction(account, taken))

    async def chat_completion(self, request: web.Request) -> web.StreamResponse:
        """Answers the older kind of turn, streamed or whole."""
        account = self._authenticated(request)
        with self._turns.stats.stream(account.id):
            taken = await self._turns.take(request, account, malformed)
            body = taken.body
            question = replace(taken, body={"model": body["model"], "input": body.get("messages")})
            script = self._turns.script(account, question, conversations=self._conversations)
            pieces = [e["delta"] for e in script.events if e["type"] == "response.output_text.delta"]
            if body.get("stream") is True:
                return await self._chat_stream(request, body, script, pieces)
            return json_answer(_chat_object(script, body["model"], "".join(pieces)))

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """Returns a small vector for each text: the same one for the same text."""
        account = self._authenticated(request)
        await obey_whole(faults_for(request, account, Surface.RESPONSES), account, self._clock())
        body, size = await json_body(request)
        refusal = malformed(body)
        if refusal is not None:
            raise Refused(refusal)
        texts = body["input"] if isinstance(body.get("input"), list) else [body.get("input")]
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(str(text))} for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": size // 4, "total_tokens": size // 4}
        return json_answer({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def models(self, request: web.Request) -> web.StreamResponse:
        """Lists the models."""
        account = self._authenticated(request)
        await obey_whole(faults_for(request, account, Surface.MODELS), account, self._clock())
        return json_answer({"object": "list", "data": openai_models()})

    def _authenticated(self, request: web.Request) -> Account:
        """Returns the account of a request. Raises `Refused` without a known key."""
        try:
            return self._accounts.by_api_key(bearer_of(request))
        except TokenRejected as rejected:
            raise Refused(error(401, code=rejected.code)) from None

    async def _whole(self, script: Script, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        await asyncio.sleep(script.duration)
        if script.ending is Ending.SILENCE:
            await asyncio.Event().wait()
        if script.ending is not Ending.ORDERLY:
            response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "4096"})
            await response.prepare(request)
            break_off(request)
            return response
        return json_answer(script.events[-1]["response"], headers=headers)

    async def _chat_stream(
        self, request: web.Request, body: Json, script: Script, pieces: list[str]
    ) -> web.StreamResponse:
        response = await open_event_stream(request, {"x-request-id": self._turns.new_id("req")})
        deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
        for delta in deltas:
            await response.write(_chunk(script, body["model"], [{"index": 0, "delta": delta, "finish_reason": None}]))
            if script.pause:
                await asyncio.sleep(script.pause)
        if script.ending is Ending.SILENCE:
            await asyncio.Event().wait()
        if script.ending is Ending.CUT:
            break_off(request)
            return response
        await response.write(_chunk(script, body["model"], [{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        options = body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await response.write(_chunk(script, body["model"], [], _chat_usage(script)))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _chunk(script: Script, model: str, choices: list[Json], usage: Json | None = None) -> bytes:
    chunk = {
        "id": script.response_id.replace("resp", "chatcmpl"),
        "object": "chat.completion.chunk",
        "created": script.created_at,
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return b"data: %b\n\n" % orjson.dumps(chunk)


def _chat_object(script: Script, model: str, text: str) -> Json:
    return {
        "id": script.response_id.replace("resp", "chatcmpl"),
        "object": "chat.completion",
        "created": script.created_at,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": _chat_usage(script),
    }


def _chat_usage(script: Script) -> Json:
    usage = script.tokens.as_usage()
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [round(byte / 127.5 - 1, 6) for byte in digest[:_DIMENSIONS]]
