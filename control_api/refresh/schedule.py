"""When a credential is due for a refresh. Pure.

Before the access token's own expiry (jittered, so that accounts imported together part ways), or when it is older than
eight days; and when its upstream has refused it: at once, but not within ten minutes of the refresh before.
"""

import hashlib

from admission_client.lease import AccountKind
from admission_client.policy import AccountStatus
from control_api.accounts.models import Account
from control_api.accounts.rejection import REFRESH_EVERY
from control_api.accounts.status import ROUTABLE

MARGIN = 300.0
MAX_AGE = 8 * 86_400.0
_SHORT_LIVED = 0.2
"""Share of its life that a token keeps for the margin when that life is shorter than the margin would allow."""


def is_due(account: Account, now: float) -> bool:
    """Returns whether the account's credential should be refreshed now."""
    if not refreshable(account):
        return False
    if account.rejected_version == account.credential_version and now >= _after_rejection(account):
        return True
    return now >= due_at(account)


def due_at(account: Account) -> float:
    """Returns when the credential is due by its age."""
    by_age = account.credential_obtained_at + MAX_AGE
    if account.access_expires_at is None:
        return by_age
    life = max(0.0, account.access_expires_at - account.credential_obtained_at)
    margin = min(MARGIN * (1.0 + _spread(account)), life * _SHORT_LIVED)
    return min(by_age, account.access_expires_at - margin)


def refreshable(account: Account) -> bool:
    """Returns whether a refresh could help: a `chatgpt` account that has a refresh token and may serve."""
    return (
        account.kind == AccountKind.CHATGPT
        and account.refresh_token is not None
        and AccountStatus(account.status) in ROUTABLE
    )


def _after_rejection(account: Account) -> float:
    # A token that was exchanged lately and is refused nevertheless is not exchanged again and again.
    lately = 0.0 if account.refreshed_at is None else account.refreshed_at + REFRESH_EVERY
    return max(lately, account.cooldown_until or 0.0)


def _spread(account: Account) -> float:
    # The same for one credential each time it is asked, and different from account to account.
    digest = hashlib.sha256(f"{account.id}:{account.credential_version}".encode()).digest()
    return digest[0] / 255.0
