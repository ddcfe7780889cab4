"""Which responses can be continued by `previous_response_id`, and what was said until then. Bounded, in memory."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from upstream_simulator.refusals import Refusal, previous_response_not_found


class PreviousResponseNotFound(LookupError):
    """The response is not known here: it belongs to another account or socket, or was forgotten."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.refusal: Refusal = previous_response_not_found(response_id)


class Conversations:
    """The latest responses of one place: of a socket, or of all HTTP turns."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._items: OrderedDict[tuple[str, str], Sequence[Any]] = OrderedDict()

    def remember(self, account: str, response_id: str, items: Sequence[Any]) -> None:
        """Keeps a completed response with everything that led to it."""
        self._items[account, response_id] = items
        while len(self._items) > self._most:
            self._items.popitem(last=False)

    def items_until(self, account: str, response_id: Any) -> Sequence[Any]:
        """Returns what was said until then; nothing for None. Raises `PreviousResponseNotFound`."""
        if response_id is None:
            return ()
        try:
            return self._items[account, str(response_id)]
        except KeyError:
            raise PreviousResponseNotFound(str(response_id)) from None
