"""Who the client is."""

import hashlib
from base64 import urlsafe_b64encode

import orjson
import pytest

from edge_proxy.auth import Client, identify, upstream_account_of
from edge_proxy.errors import BodyMalformed, KeyMissing

REMOTE, LOCAL = "203.0.113.9", "127.0.0.1"
KEY = "sk-sg-abc"
HASH = hashlib.sha256(KEY.encode()).digest()


def jwt(claims: object) -> str:
    return f"eyJhbGciOiJub25lIn0.{urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip('=')}.x"


JWT = jwt({"https://api.openai.com/auth": {"chatgpt_account_id": "acct-7"}})


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-sluicegate-key": KEY},
        {"x-sluicegate-key": KEY, "authorization": f"Bearer {JWT}"},
    ],
)
def test_a_key_of_ours_is_known_by_its_hash(headers: dict[str, str]):
    assert identify(headers, REMOTE, keyless=False) == Client(key_sha256=HASH)


def test_a_sign_in_without_our_key_is_told_what_to_configure():
    with pytest.raises(KeyMissing, match="x-sluicegate-key"):
        identify({"authorization": f"Bearer {JWT}"}, REMOTE, keyless=False)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}])
def test_nothing_at_all_is_a_missing_key(headers: dict[str, str]):
    with pytest.raises(KeyMissing):
        identify(headers, LOCAL, keyless=False)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1"])
@pytest.mark.parametrize("headers", [{}, {"authorization": f"Bearer {JWT}"}])
def test_keyless_is_for_this_machine(headers: dict[str, str], peer: str):
    assert identify(headers, peer, keyless=True) == Client(peer=peer)


@pytest.mark.parametrize("peer", [REMOTE, "", "unix:", "10.0.0.1"])
def test_keyless_is_for_nobody_else(peer: str):
    with pytest.raises(KeyMissing):
        identify({"x-forwarded-for": LOCAL}, peer, keyless=True)


def test_a_key_counts_even_where_none_is_needed():
    assert identify({"authorization": f"Bearer {KEY}"}, LOCAL, keyless=True) == Client(key_sha256=HASH)


@pytest.mark.parametrize(
    "headers",
    [
        {"chatgpt-account-id": "acct-7", "authorization": "Bearer x"},
        {"authorization": f"Bearer {JWT}"},
        {"authorization": f"Bearer {jwt({'chatgpt_account_id': 'acct-7'})}"},
    ],
)
def test_the_clients_own_account_is_read_from_header_or_sign_in(headers: dict[str, str]):
    assert upstream_account_of(headers) == "acct-7"


@pytest.mark.parametrize(
    "bearer", ["", "sk-x", "eyJ.!!!.x", jwt([]), jwt({"https://api.openai.com/auth": 1}), jwt({"a": 1})]
)
def test_no_account_is_an_error(bearer: str):
    with pytest.raises(BodyMalformed):
        upstream_account_of({"authorization": f"Bearer {bearer}"})
