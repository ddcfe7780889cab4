"""Which account a turn tries next, and when it has had enough tries. Pure.

A turn tries at most three accounts, and only while its client has seen nothing. Each try gives all its seats back
before the next one asks. A turn bound to one account (`previous_response_id`) never moves: it may only wait for a newer
credential of its own account, once, as may a turn that finds no other account.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from admission_client.errors import Denied
from admission_client.lease import AccountNeeds, DenialReason, GrantedAccount
from edge_proxy.errors import UpstreamFailed, UpstreamTrouble
from edge_proxy.outcome import Action, Verdict

MOST_ACCOUNTS = 3
CREDENTIAL_WAIT = 10.0
_NOBODY_ELSE = frozenset(
    {
        DenialReason.NO_ACCOUNT,
        DenialReason.UNSUPPORTED_BY_ACCOUNT,
        DenialReason.CREDENTIAL_UNAVAILABLE,
        DenialReason.COOLING_DOWN,
        DenialReason.OWNER_GONE,
        DenialReason.QUOTA_EXHAUSTED,
    }
)


class TryFailed(Exception):
    """A try failed before the client saw anything. `error` is what to tell the client if there is no other try."""

    def __init__(self, verdict: Verdict, account: GrantedAccount, error: Exception) -> None:
        super().__init__(str(error))
        self.verdict = verdict
        self.account = account
        self.error = error

    @property
    def surfaced(self) -> Exception:
        """What the client is told: never the upstream's opinion of a credential that is not the client's."""
        if self.verdict.action is Action.REAUTHENTICATE or self.verdict.status in {401, 403}:
            return UpstreamFailed(UpstreamTrouble.UNAUTHORISED, "The upstream does not accept the account's sign-in.")
        return self.error


class RetryBudget:
    """Bounds retries over all requests of a process, so that an upstream in trouble is not buried under them."""

    def __init__(self, retries: int, *, per: float, clock: Callable[[], float]) -> None:
        self._retries = retries
        self._per = per
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self) -> bool:
        """Takes one retry. Returns False when there is none left."""
        now = self._clock()
        while self._spent and self._spent[0] <= now - self._per:
            self._spent.popleft()
        if len(self._spent) >= self._retries:
            return False
        self._spent.append(now)
        return True


class Attempts:
    """The tries of one turn."""

    def __init__(self, needs: AccountNeeds, budget: RetryBudget) -> None:
        self.needs = needs
        """What to ask for next."""
        self.max_wait: float | None = None
        """How long to wait for it at most; None leaves that to the resources."""
        self.why = ""
        """Outcome of the last try that failed."""
        self._first = needs
        self._last: TryFailed | None = None
        self._budget = budget
        self._bound = bool(needs.required_owner_key or needs.required_account_id)
        self._tried: list[str] = []
        self._rejected: GrantedAccount | None = None
        self._waited = False

    def verdict_on(self, failure: TryFailed | Denied) -> Exception | None:
        """Returns None if there is another try, with `needs`; else what to tell the client."""
        if isinstance(failure, Denied):
            return self._after_denial(failure)
        self._last = failure
        self.why = failure.verdict.outcome.value
        return None if self._again(failure.verdict, failure.account) else failure.surfaced

    @property
    def retrying(self) -> bool:
        """Whether a try has failed already."""
        return self._last is not None

    @property
    def suspect(self) -> bool:
        """Whether an account's credential was refused with this request, which may be the request's own fault."""
        return self._rejected is not None

    def _again(self, verdict: Verdict, account: GrantedAccount) -> bool:
        self._tried.append(account.account_id)
        if verdict.action is Action.SURFACE or self._waited:
            return False
        if verdict.action is Action.REAUTHENTICATE:
            # The first one's refresh is under way; later refusals of the same request ask for none.
            self._rejected = self._rejected or account
        if self._bound:
            return verdict.action is Action.REAUTHENTICATE and self._budget.spend() and self._await_credential()
        if len(set(self._tried)) >= MOST_ACCOUNTS or not self._budget.spend():
            return False
        self.needs = replace(self._first, avoid_account_ids=tuple(dict.fromkeys(self._tried)), reattach=True)
        return True

    def _after_denial(self, denied: Denied) -> Exception | None:
        if self._last is None:
            return denied
        if self._rejected is not None and not self._waited and denied.denial.reason in _NOBODY_ELSE:
            self._await_credential()
            return None
        # A retry found nobody else. The whole pool's quota says more than one account's answer; nothing else does.
        return denied if denied.denial.reason is DenialReason.QUOTA_EXHAUSTED else self._last.surfaced

    def _await_credential(self) -> bool:
        if self._rejected is None:
            return False
        self._waited = True
        self.max_wait = CREDENTIAL_WAIT
        self.needs = replace(
            self._first,
            required_account_id=self._rejected.account_id,
            newer_than_credential_version=self._rejected.credential_version,
            reattach=True,
        )
        return True
