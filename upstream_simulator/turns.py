"""One turn over HTTP, whoever asks: from its body to the script that answers it.

The strict backend and the lenient `/v1` service differ in what they check first; from there on a turn is a turn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from upstream_simulator.accounts import Account
from upstream_simulator.conversations import Conversations
from upstream_simulator.faults import Faults
from upstream_simulator.responses import Json, NewId, output_items, read_ask, tokens_of
from upstream_simulator.script import Script, write_script
from upstream_simulator.stats import Stats


class Turns:
    """Writes scripts, and remembers and counts what they do."""

    def __init__(self, *, stats: Stats, clock: Callable[[], float], new_id: NewId, event_delay: float) -> None:
        self.stats = stats
        self.clock = clock
        self.new_id = new_id
        self._event_delay = event_delay

    def see(
        self,
        account: Account,
        body: Any,
        *,
        transport: str,
        path: str,
        headers: Mapping[str, str],
        size: int,
    ) -> None:
        """Notes a turn in the statistics, before anything is decided about it."""
        self.stats.turn(account=account.id, transport=transport, path=path, headers=headers, body=body, size=size)

    def script(
        self,
        account: Account,
        body: Json,
        *,
        faults: Faults,
        conversations: Conversations,
        size: int,
        telemetry: Sequence[Json] = (),
    ) -> Script:
        """Writes the answer's script. Raises `PreviousResponseNotFound`."""
        earlier = conversations.items_until(account.id, body.get("previous_response_id"))
        ask = read_ask(body, earlier=earlier, size=size)
        script = write_script(
            ask,
            faults=faults,
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

    def compaction(self, account: Account, body: Json, *, size: int) -> Json:
        """Answers the older compaction endpoint: one object with exactly one compaction item."""
        items = body["input"] if isinstance(body.get("input"), list) else []
        ask = read_ask({**body, "input": [*items, {"type": "compaction_trigger"}]}, size=size)
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
