"""Turn states: opaque values that a client sends back within a turn, and that mean something to one account only."""

from collections import OrderedDict
from collections.abc import Callable

from upstream_simulator.responses import NewId


class TurnStates:
    """The turn states that were given out, and to whom they belong. Bounded."""

    def __init__(self, *, new_id: NewId, on_foreign: Callable[[], None], most: int = 10_000) -> None:
        self._new_id = new_id
        self._on_foreign = on_foreign
        self._most = most
        self._account_of: OrderedDict[str, str] = OrderedDict()

    def continued(self, account: str, sent: str | None) -> str:
        """Returns the turn state to answer with: the one that was sent, when it is this account's; else a new one.

        One that belongs to another account means that somebody mixed up who owns it, and is counted as that.
        """
        owner = self._account_of.get(sent) if sent else None
        if sent and owner == account:
            return sent
        if owner is not None:
            self._on_foreign()
        state = self._new_id("ts")
        self._account_of[state] = account
        while len(self._account_of) > self._most:
            self._account_of.popitem(last=False)
        return state
