"""What each API key has used, as the admission server tells it; `cumulative` says how counts become totals."""

import time
from collections.abc import Callable, Sequence

from sqlmodel import col, select

from admission_client.policy import KeySignal
from control_api.cumulative import add_told
from control_api.database import Database
from control_api.errors import NotFound
from control_api.keys.models import ApiKey, KeyUsage


class KeyUsageService:
    """The counts of this installation's keys."""

    def __init__(self, *, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    async def receive(self, signals: Sequence[KeySignal]) -> None:
        """Stores what keys have used. Raises `DatabaseError`; then nothing was stored, and it comes again."""
        ids = [signal.key_id for signal in signals]
        async with self._database.write() as session:
            known = set((await session.exec(select(ApiKey.id).where(col(ApiKey.id).in_(ids)))).all())
            rows = (await session.exec(select(KeyUsage).where(col(KeyUsage.key_id).in_(ids)))).all()
            by_id = {row.key_id: row for row in rows}
            for signal in signals:
                if signal.key_id in known:
                    row = by_id.get(signal.key_id) or KeyUsage(key_id=signal.key_id, told_at=0.0)
                    add_told(row, signal)
                    row.told_at = self._now()
                    session.add(row)

    async def of(self, key_id: str) -> KeyUsage:
        """Returns what a key has used. Raises `NotFound`."""
        async with self._database.read() as session:
            if await session.get(ApiKey, key_id) is None:
                raise NotFound("There is no such key.")
            return await session.get(KeyUsage, key_id) or KeyUsage(key_id=key_id)
