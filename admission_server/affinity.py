"""Which account a key belongs to: affinity keys and owned keys. Pure, bounded in number and in time.

Keys are kept apart by who uses them (the id of the API key, or empty), so that one client's key never leads to what
another one owns.
"""

from collections import OrderedDict


class OwnerMap:
    """Keys and the account that each belongs to; the least recently used ones make room, unused ones run out."""

    __slots__ = ("_capacity", "_owners", "_ttl")

    def __init__(self, *, capacity: int, ttl: float) -> None:
        self._capacity = capacity
        self._ttl = ttl
        self._owners: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def get(self, client: str, key: str, now: float) -> str | None:
        """Returns the account of a key and renews it, or None."""
        found = self._owners.get((client, key))
        if found is None:
            return None
        account_id, until = found
        if now >= until:
            del self._owners[client, key]
            return None
        self._owners[client, key] = (account_id, now + self._ttl)
        self._owners.move_to_end((client, key))
        return account_id

    def put(self, client: str, key: str, account_id: str, now: float) -> None:
        """Says that a key belongs to an account from now on."""
        self._owners[client, key] = (account_id, now + self._ttl)
        self._owners.move_to_end((client, key))
        if len(self._owners) > self._capacity:
            self._owners.popitem(last=False)
