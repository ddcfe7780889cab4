"""What a 401 for a credential means. Pure, and the same for traffic and for usage queries.

A version that was exchanged less than ten minutes before its rejection is not exchanged again: an account whose every
token is refused must not burn refreshes. An imported credential may be of any age, so its first rejection asks for one.
"""

from dataclasses import dataclass

from admission_client.lease import AccountKind
from control_api.accounts.codes import REVOKED
from control_api.accounts.models import Account
from control_api.accounts.status import StatusEvent

REFRESH_EVERY = 600.0
AUTH_COOLDOWN = 300.0


@dataclass(frozen=True, slots=True)
class RefreshIt:
    """Exchange the token, once."""


@dataclass(frozen=True, slots=True)
class CoolDown:
    """Keep away for a while; a refresh does not help."""

    seconds: float = AUTH_COOLDOWN


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The credential or the account is dead."""

    event: StatusEvent


Meaning = RefreshIt | CoolDown | GiveUp


def meaning_of_rejection(account: Account, *, code: str, at: float) -> Meaning:
    """Returns what to do about a rejection of the credential in force."""
    # Either way: a refresh long after the rejection was stored before the clock was set back.
    refreshed_lately = account.refreshed_at is not None and abs(at - account.refreshed_at) < REFRESH_EVERY
    if account.kind == AccountKind.CHATGPT and account.refresh_token is not None and not refreshed_lately:
        return RefreshIt()
    event = REVOKED.get(code)
    return CoolDown() if event is None else GiveUp(event)
