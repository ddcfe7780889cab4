"""Keeps the limits: merges defaults, environment and changes; validates every change as a whole."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlmodel import select

from admission_client.policy import ResourceSettings, SelectionStrategy
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import InputRefused
from control_api.limits.models import (
    DEFAULTS,
    FAIR_SHARE_DEFAULT,
    GENERAL,
    LimitChange,
    LimitsPatch,
    LimitsView,
    ResourceView,
    Source,
)

FIELDS = ("limit", "max_wait", "queue_limit", "max_hold", "paused", "reserve")
Changed = Mapping[tuple[str, str], Any]
"""What was changed through the API: (resource, field) → value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All limits in force."""

    resources: Mapping[str, ResourceSettings]
    fair_share_threshold_percent: int
    strategy: SelectionStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """What one change did: all changes before it and after it."""

    before: Changed
    after: Changed


class LimitService:
    """The limits of this installation. `current` is always what is stored; `load` fills it at start."""

    def __init__(
        self,
        *,
        database: Database,
        changes: PolicyChanges,
        seeds: Mapping[str, int],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._changes = changes
        self._seeds = dict(seeds)
        self._now = now
        self._changed: Changed = {}
        # From reading what is stored to storing what follows: two changes at once would lose one of them.
        self._writing = asyncio.Lock()
        self.current = merged({}, self._seeds)

    async def load(self) -> None:
        """Reads what was changed before."""
        async with self._database.read() as session:
            rows = (await session.exec(select(LimitChange))).all()
        self._changed = {(row.resource, row.field): row.value for row in rows}
        self.current = merged(self._changed, self._seeds)

    def view(self) -> LimitsView:
        """Returns all limits and where each value comes from."""
        return LimitsView(
            version=self._changes.version,
            resources={
                name: ResourceView(
                    **{field: getattr(settings, field) for field in FIELDS},
                    sources={field: self._source(name, field) for field in FIELDS},
                )
                for name, settings in self.current.resources.items()
            },
            fair_share_threshold_percent=self.current.fair_share_threshold_percent,
            strategy=self.current.strategy,
            sources={field: self._source(GENERAL, field) for field in ("fair_share_threshold_percent", "strategy")},
        )

    async def patch(self, patch: LimitsPatch) -> Patched:
        """Stores a change and returns what it changed, for `restore`. Raises `InputRefused`; nothing changes then."""
        async with self._writing:
            before, wanted = self._changed, patched(self._changed, patch)
            await self._store(wanted)
        return Patched(before=before, after=wanted)

    async def restore(self, change: Patched) -> None:
        """Takes a change back that the admission server has refused; what others have changed meanwhile stays."""
        async with self._writing:
            wanted = restored(self._changed, change)
            try:
                await self._store(wanted)
            except InputRefused:
                # What stands now leans on the refused change, so only the state before both is known to be good.
                await self._store(change.before)

    async def _store(self, changed: Changed) -> None:
        limits = merged(changed, self._seeds)
        check(limits)
        now = self._now()
        async with self._database.write() as session:
            await session.exec(sql_delete(LimitChange))
            for (resource, field), value in changed.items():
                session.add(LimitChange(resource=resource, field=field, value=value, changed_at=now))
        self._changed, self.current = changed, limits
        self._changes.mark()

    def _source(self, resource: str, field: str) -> Source:
        if (resource, field) in self._changed:
            return Source.CHANGED
        if field == "limit" and resource in self._seeds:
            return Source.ENVIRONMENT
        return Source.DEFAULT


def patched(changed: Changed, patch: LimitsPatch) -> Changed:
    """Returns the changes after a patch: values that are null are taken out. Raises `InputRefused`. Pure."""
    result = dict(changed)
    for name, settings in patch.resources.items():
        if name not in DEFAULTS:
            raise InputRefused(f"There is no resource {name!r}.", field=f"resources.{name}")
        told = FIELDS if settings is None else settings.model_fields_set
        for field in told:
            _put(result, (name, field), None if settings is None else getattr(settings, field))
    for field in ("fair_share_threshold_percent", "strategy"):
        if field in patch.model_fields_set:
            _put(result, (GENERAL, field), getattr(patch, field))
    return result


def restored(changed: Changed, change: Patched) -> Changed:
    """Returns the changes without one of them; values that were changed again since then stay. Pure."""
    result = dict(changed)
    for key in change.before.keys() | change.after.keys():
        before, after = change.before.get(key), change.after.get(key)
        if before != after and changed.get(key) == after:
            _put(result, key, before)
    return result


def merged(changed: Changed, seeds: Mapping[str, int]) -> Limits:
    """Returns the limits in force: changes before environment before defaults. Pure."""
    resources = {}
    for name, default in DEFAULTS.items():
        values: dict[str, Any] = {"limit": seeds[name]} if name in seeds else {}
        values |= {field: changed[name, field] for field in FIELDS if (name, field) in changed}
        settings = dataclasses.replace(default, **values)
        if settings.limit and (name, "reserve") not in changed:
            # A default reserve must never swallow a small limit.
            settings = dataclasses.replace(settings, reserve=min(settings.reserve, settings.limit - 1))
        resources[name] = settings
    return Limits(
        resources=resources,
        fair_share_threshold_percent=changed.get((GENERAL, "fair_share_threshold_percent"), FAIR_SHARE_DEFAULT),
        strategy=SelectionStrategy(changed.get((GENERAL, "strategy"), SelectionStrategy.CAPACITY_WEIGHTED)),
    )


def check(limits: Limits) -> None:
    """Raises `InputRefused` when the limits do not go together. Pure."""
    for name, settings in limits.resources.items():
        if settings.limit and settings.reserve >= settings.limit:
            raise InputRefused("The reserve must be smaller than the limit.", field=f"resources.{name}.reserve")
        if settings.paused and name == "lanes/dashboard":
            raise InputRefused("A paused dashboard lane could never be resumed.", field=f"resources.{name}.paused")
        if settings.reserve and name != "accounts/-/streams":
            raise InputRefused("Only account streams have a reserve.", field=f"resources.{name}.reserve")


def _put(changed: dict[tuple[str, str], Any], key: tuple[str, str], value: Any) -> None:
    if value is None:
        changed.pop(key, None)
    else:
        changed[key] = value
