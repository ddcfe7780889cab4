import base64
import hashlib

import pytest

from upstream_simulator.logins import LoginRefused, Logins

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://localhost:1455/auth/callback"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def logins(clock):
    return Logins(clock=clock)


def test_a_code_is_redeemed_once(logins):
    code = logins.grant("acct_1", challenge=CHALLENGE, redirect_uri=CALLBACK)

    assert logins.redeem(code, verifier=VERIFIER, redirect_uri=CALLBACK) == "acct_1"
    with pytest.raises(LoginRefused):
        logins.redeem(code, verifier=VERIFIER, redirect_uri=CALLBACK)


@pytest.mark.parametrize(
    ("verifier", "redirect_uri", "later"),
    [("other", CALLBACK, 0), (VERIFIER, "http://localhost:1/elsewhere", 0), (VERIFIER, CALLBACK, 600)],
)
def test_a_code_needs_its_verifier_its_address_and_haste(logins, clock, verifier, redirect_uri, later):
    code = logins.grant("acct_1", challenge=CHALLENGE, redirect_uri=CALLBACK)
    clock.now += later

    with pytest.raises(LoginRefused, match="invalid_grant"):
        logins.redeem(code, verifier=verifier, redirect_uri=redirect_uri)


def test_a_device_waits_until_a_person_types_its_code(logins):
    login = logins.begin_device()
    with pytest.raises(LoginRefused, match="authorization_pending"):
        logins.poll_device(login.device_auth_id, login.user_code, redirect_uri=CALLBACK)
    logins.approve_device(login.user_code.lower(), "acct_1")
    grant = logins.poll_device(login.device_auth_id, login.user_code, redirect_uri=CALLBACK)

    assert logins.redeem(grant.authorization_code, verifier=grant.code_verifier, redirect_uri=CALLBACK) == "acct_1"


def test_a_device_code_ends(logins, clock):
    login = logins.begin_device()
    clock.now += 900

    with pytest.raises(LoginRefused, match="unknown_user_code"):
        logins.approve_device(login.user_code, "acct_1")
    with pytest.raises(LoginRefused, match="expired_token"):
        logins.poll_device(login.device_auth_id, login.user_code, redirect_uri=CALLBACK)
