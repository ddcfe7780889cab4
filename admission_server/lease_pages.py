"""Lists leases a page at a time, however many there are. Pure.

* Leases stand by session and id; where a filter names a resource or a session, by id alone.
* A page begins right after the place that its token names, so it costs about as much as it shows. A lease that stays is
  shown once, whatever comes and goes between two pages.
* A filter that matches few passes over many: `scan` says now and then that it has, so that the caller can let others go
  first. What it yields afterwards is there at that moment.
* A token belongs to the filters that it was made with.
"""

import base64
import binascii
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from admission_server.ledger import Ledger
from admission_server.resources import Lease

PASSED_OVER_AT_ONCE = 2_000


class BadToken(ValueError):
    """A page token that is none of ours, or was made with other filters."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: a lease, and the session that it stands under."""

    session_id: str = ""
    lease_id: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseQuery:
    """Which leases; empty fields filter nothing."""

    resource: str = ""
    session_id: str = ""
    account_id: str = ""

    def place_of(self, lease: Lease) -> Place:
        """Returns where a lease stands in the list that this asks for."""
        return Place("" if self.resource or self.session_id else lease.session.session_id, lease.lease_id)

    def token_after(self, lease: Lease) -> str:
        """Returns the token of the page that begins after a lease."""
        place = self.place_of(lease)
        return base64.urlsafe_b64encode(f"{self._mark()} {place.session_id} {place.lease_id}".encode()).decode()

    def read_token(self, token: str) -> Place:
        """Returns where a page begins. Raises `BadToken`."""
        if not token:
            return Place()
        try:
            mark, session_id, lease_id = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
            place = Place(session_id, int(lease_id[:20]))
        except (ValueError, binascii.Error):
            raise BadToken("is none of ours") from None
        if mark != self._mark():
            raise BadToken("belongs to other filters")
        return place

    def scan(self, ledger: Ledger, after: Place) -> Iterator[Lease | None]:
        """Yields the leases that match, from a place on; None whenever many were passed over."""
        passed_over = 0
        for session_id, leases in self._sources(ledger, after):
            ids = sorted(leases)  # in order but for those that were claimed again, so this is a single pass
            start = bisect_right(ids, after.lease_id) if session_id == after.session_id else 0
            for lease_id in ids[start:]:
                lease = leases.get(lease_id)
                if lease is not None and self._matches(lease):
                    yield lease
                    continue
                passed_over += 1
                if passed_over % PASSED_OVER_AT_ONCE == 0:
                    yield None

    def _sources(self, ledger: Ledger, after: Place) -> Iterator[tuple[str, dict[int, Lease]]]:
        if self.resource:
            resource = ledger.catalogue.resources.get(self.resource)
            if resource is not None:
                yield "", resource.leases
        elif self.session_id:
            session = ledger.sessions.get(self.session_id)
            if session is not None:
                yield "", session.leases
        else:
            for session_id in sorted(i for i in ledger.sessions if i >= after.session_id):
                session = ledger.sessions.get(session_id)
                if session is not None:
                    yield session_id, session.leases

    def _matches(self, lease: Lease) -> bool:
        return (not self.account_id or lease.grant.account_id == self.account_id) and (
            not self.session_id or lease.session.session_id == self.session_id
        )

    def _mark(self) -> str:
        return f"{zlib.crc32(repr((self.resource, self.session_id, self.account_id)).encode()):08x}"
