"""One turn, whoever asks: from its body to the script that answers it.

The strict backend and the lenient `/v1` service differ in what they check first; from there on a turn is a turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from upstream_simulator.accounts import Account, Surface
from upstream_simulator.conversations import Conversations
from upstream_simulator.faults import Faults
from upstream_simulator.incoming import Refused, faults_for, json_body, obey
from upstream_simulator.refusals import Refusal
from upstream_simulator.responses import Json, NewId, output_items, read_ask, tokens_of
from upstream_simulator.script import Script, write_script
from upstream_simulator.stats import Stats

RefusalOf = Callable[[Any], Refusal | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A turn that was read and found good: its body, the body's decoded size, and what shall go wrong with it."""

    body: Json
    size: int
    faults: Faults


class Turns:
    """Writes scripts, and remembers and counts what they do."""

    def __init__(self, *, stats: Stats, clock: Callable[[], float], new_id: NewId, event_delay: float) -> None:
        self.stats = stats
        self.clock = clock
        self.new_id = new_id
        self._event_delay = event_delay

    async def take(self, request: web.Request, account: Account, refusal_of: RefusalOf) -> Taken:
        """Reads an HTTP turn and notes it. Hangs or raises `Refused` when faults or `refusal_of` say so."""
        faults = faults_for(request, account, Surface.RESPONSES)
        body, size = await json_body(request)
        self.stats.turn(
            account=account.id, transport="http", path=request.path, headers=request.headers, body=body, size=size
        )
        await obey(faults, account, self.clock())
        refusal = refusal_of(body)
        if refusal is not None:
            raise Refused(refusal)
        return Taken(body=body, size=size, faults=faults)

    def script(
        self,
        account: Account,
        taken: Taken,
        *,
        conversations: Conversations,
        telemetry: Sequence[Json] = (),
    ) -> Script:
        """Writes the answer's script. Raises `PreviousResponseNotFound`."""
        earlier = conversations.items_until(account.id, taken.body.get("previous_response_id"))
        ask = read_ask(taken.body, earlier=earlier, size=taken.size)
        script = write_script(
            ask,
            faults=taken.faults,
            usage=account.usage,
            pause=self._event_delay,
            now=self.clock(),
            new_id=self.new_id,
            telemetry=telemetry,
        )
        if script.completes:
            account.usage.count(script.tokens.total, self.clock())
            conversations.remember(account.id, script.response_id, [*ask.items, *script.items])
        return script

    def compaction(self, account: Account, taken: Taken) -> Json:
        """Answers the older compaction endpoint: one object with exactly one compaction item."""
        items = taken.body["input"] if isinstance(taken.body.get("input"), list) else []
        ask = read_ask({**taken.body, "input": [*items, {"type": "compaction_trigger"}]}, size=taken.size)
        output = output_items(ask, new_id=self.new_id)
        tokens = tokens_of(ask, output)
        account.usage.count(tokens.total, self.clock())
        return {
            "id": self.new_id("resp"),
            "object": "response.compaction",
            "created_at": int(self.clock()),
            "status": "completed",
            "output": output,
            "usage": tokens.as_usage(),
        }
