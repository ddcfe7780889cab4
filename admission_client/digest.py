"""The digest by which holder and server compare sets of leases in O(1): the sum of splitmix64 over the lease ids.

A sum, so that leases may come and go in any order; splitmix64, so that sets which differ have sums that differ.
docs/protocol.md has test values.
"""

_MASK = (1 << 64) - 1


def splitmix64(value: int) -> int:
    """Returns the output of SplitMix64 for one state: a well-mixed 64-bit hash of a 64-bit number."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class LeaseDigest:
    """The digest of a changing set.

    Hashing waits until somebody asks: a lease that comes and goes between two heartbeats costs no hash at all, and
    those are nearly all of them (a lane or a stage is held for less than a heartbeat by most requests).
    """

    __slots__ = ("_fresh", "_sum")

    def __init__(self) -> None:
        self._sum = 0
        self._fresh: set[int] = set()

    def add(self, lease_id: int) -> None:
        """Takes in a lease that is not in the set."""
        self._fresh.add(lease_id)

    def remove(self, lease_id: int) -> None:
        """Takes out a lease that is in the set."""
        if lease_id in self._fresh:
            self._fresh.discard(lease_id)
        else:
            self._sum = (self._sum - splitmix64(lease_id)) & _MASK

    def value(self) -> int:
        """Returns the digest of the set as it is now."""
        if self._fresh:
            self._sum = (self._sum + sum(map(splitmix64, self._fresh))) & _MASK
            self._fresh.clear()
        return self._sum
