"""What a failed usage query means for its account. Pure.

A permanent code deactivates on any status, message text only on 401 and 403. A 401 that takes the access token back
says no more than that: the account may well get another one, so a refresh is tried first. A 404 without a code of its
own, or one that met another account within the last minute, is a configuration error and nobody's fault. 403 cools
down and never deactivates; 408, 429, 5xx and broken connections mean nothing at all.
"""

import enum
from dataclasses import dataclass
from typing import Any

from control_api.accounts.codes import REVOKED, code_of, has_code
from control_api.accounts.status import StatusEvent

_ACCESS_TOKEN_CODES = frozenset({"token_invalidated", "token_revoked"})
_DEACTIVATED = ("your openai account has been deactivated", "account has been deactivated")


class Failure(enum.Enum):
    """What kind of failure it was."""

    NOTHING = "nothing"
    COOL_DOWN = "cool_down"
    CREDENTIAL_REFUSED = "credential_refused"
    MISCONFIGURED = "misconfigured"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureVerdict:
    """What to do, and in which words. `event`: what has befallen the account, if no refresh helps."""

    failure: Failure
    code: str
    event: StatusEvent | None = None


def judge_failure(status: int, payload: Any, *, another_404_lately: bool) -> FailureVerdict:
    """Returns what an answer other than success means."""
    code = code_of(status, payload)
    event = REVOKED.get(code)
    if event is None and status in {401, 403} and _says_deactivated(payload):
        event = StatusEvent.ACCOUNT_DISABLED
    if status == 401 and code in _ACCESS_TOKEN_CODES:
        return FailureVerdict(failure=Failure.CREDENTIAL_REFUSED, code=code, event=event)
    if event is not None:
        return FailureVerdict(failure=Failure.GIVE_UP, code=code, event=event)
    if status == 404 and (another_404_lately or not has_code(status, payload)):
        return FailureVerdict(failure=Failure.MISCONFIGURED, code=code)
    if status in {402, 404}:
        return FailureVerdict(failure=Failure.GIVE_UP, code=code, event=StatusEvent.ACCOUNT_DISABLED)
    if status == 401:
        return FailureVerdict(failure=Failure.CREDENTIAL_REFUSED, code=code)
    if status == 403:
        return FailureVerdict(failure=Failure.COOL_DOWN, code=code)
    return FailureVerdict(failure=Failure.NOTHING, code=code)


def _says_deactivated(payload: Any) -> bool:
    if not isinstance(payload, dict):
        return False
    error = payload.get("error")
    candidates = [payload.get("message"), payload.get("detail"), error]
    if isinstance(error, dict):
        candidates.append(error.get("message"))
    texts = [text.lower() for text in candidates if isinstance(text, str)]
    return any(phrase in text for phrase in _DEACTIVATED for text in texts)
