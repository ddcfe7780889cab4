"""Pushes the policy whenever something has changed. State, not messages: while admission is away nothing piles up."""

import asyncio
from collections import Counter

import structlog

from admission_client.errors import AdmissionUnavailable, PolicyRefused
from admission_client.policy import AccountStatus, Policy
from control_api.changes import PolicyChanges
from control_api.errors import DatabaseError, PolicyNotAccepted
from control_api.metrics import Metrics
from control_api.push.service import PolicyReader, PolicySink

log = structlog.get_logger(__name__)
RETRY_AFTER = 1.0


class PolicyPusher:
    """Keeps the admission server's policy equal to this installation's state."""

    def __init__(self, *, changes: PolicyChanges, reader: PolicyReader, sink: PolicySink, metrics: Metrics) -> None:
        self._changes = changes
        self._reader = reader
        self._sink = sink
        self._metrics = metrics

    async def run(self) -> None:
        """Pushes until cancelled. Ends with `TermRefused` when a newer controller has taken over."""
        while True:
            number = await self._changes.take()
            outcome = await self._push(number)
            self._metrics.policy_pushes.labels(outcome).inc()

    async def _push(self, number: int) -> str:
        try:
            policy = await self._reader.read()
            self._count(policy)
            version = await self._sink.update(policy)
        except PolicyRefused as error:
            log.error("the admission server refused the policy", field=error.field, reason=str(error))
            self._changes.refused(number, PolicyNotAccepted(str(error), field=error.field))
            return "refused"
        except AdmissionUnavailable:
            return "unavailable"  # it stays wanted; the sync client has logged why, and has waited already
        except DatabaseError as error:
            log.warning("the policy could not be read", reason=str(error), retry_after=RETRY_AFTER)
            await asyncio.sleep(RETRY_AFTER)
            return "unavailable"
        self._changes.done(number, version)
        self._metrics.policy_version.set(version)
        return "applied"

    def _count(self, policy: Policy) -> None:
        standing = Counter(account.status for account in policy.accounts)
        for status in AccountStatus:
            self._metrics.accounts.labels(status.value).set(standing[status])
