import base64
import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_api.accounts.identity import MAX_AUTH_JSON, claims_of, expiry_of, read_auth_json
from control_api.errors import InputRefused


def jwt(**claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


def auth_json(**tokens):
    return json.dumps({"tokens": {"access_token": "a", "refresh_token": "r", **tokens}}).encode()


def test_both_spellings_mean_the_same():
    snake = json.dumps(
        {
            "tokens": {"id_token": "i", "access_token": "a", "refresh_token": "r", "account_id": "acc"},
            "last_refresh": "2026-05-01T10:00:00Z",
        }
    ).encode()
    camel = json.dumps(
        {
            "tokens": {"idToken": "i", "accessToken": "a", "refreshToken": "r", "accountId": "acc"},
            "lastRefreshAt": "2026-05-01T10:00:00Z",
            "somethingNew": 1,
        }
    ).encode()

    assert read_auth_json(snake) == read_auth_json(camel)


def test_the_seat_comes_from_the_claims():
    claims = {
        "email": "Ann@Example.com",
        "exp": 1_900_000_000,
        "https://api.openai.com/auth": {
            "chatgpt_account_id": "0F-1",
            "chatgpt_user_id": "user-9",
            "chatgpt_plan_type": "team",
            "organization_id": "org-1",
            "workspace_name": "Lab",
            "seat_type": "standard",
        },
    }

    found = read_auth_json(auth_json(access_token=jwt(**claims), account_id="ignored"))

    seat = found.seat
    assert (seat.account_id, seat.user_id, seat.email) == ("0F-1", "user-9", "ann@example.com")
    assert (seat.plan, seat.workspace_id, seat.workspace_label, seat.seat_type) == ("team", "org-1", "Lab", "standard")
    assert found.access_expires_at == 1_900_000_000
    assert seat.local_id.startswith("0f_1_")


def test_two_users_of_one_workspace_are_two_seats():
    def seat_of(user):
        return read_auth_json(auth_json(id_token=jwt(chatgpt_user_id=user), account_id="workspace")).seat

    assert seat_of("ann").key != seat_of("bob").key
    assert seat_of("ann").local_id != seat_of("bob").local_id
    assert seat_of("ann") == seat_of("ann")


def test_one_user_in_two_workspaces_is_two_seats():
    def seat_of(workspace):
        return read_auth_json(auth_json(id_token=jwt(email="ann@example.com"), account_id=workspace)).seat

    assert seat_of("one").key != seat_of("two").key


def test_strangers_without_any_claim_do_not_become_one_account():
    first = read_auth_json(auth_json(refresh_token="r1")).seat
    second = read_auth_json(auth_json(refresh_token="r2")).seat

    assert first.key != second.key
    assert first.local_id != second.local_id
    assert first.email == "unknown@example.com"


@given(st.text(max_size=40), st.text(max_size=40), st.emails() | st.just(""))
def test_an_id_is_always_made_of_small_letters_digits_and_underscores(account, user, email):
    claims = {"chatgpt_account_id": account, "chatgpt_user_id": user, "email": email}

    seat = read_auth_json(auth_json(id_token=jwt(**claims))).seat

    assert re.fullmatch(r"[a-z0-9_]{1,128}", seat.local_id)


ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(st.characters(categories=["Cc", "Cs", "L"]), max_size=9)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_whatever_the_claims_hold_a_seat_can_be_stored_and_its_account_id_sent(account, email, label):
    claims = {"chatgpt_account_id": account, "email": email, "workspace_label": label}

    seat = read_auth_json(auth_json(access_token=jwt(**claims), account_id="given")).seat

    assert re.fullmatch(r"[!-~]{1,256}", seat.account_id)
    assert all("\0" not in text and text.encode() for text in (seat.key, seat.email))
    assert not {"\n", "\0"} & set(seat.workspace_label)


def test_an_account_id_that_cannot_stand_in_a_header_does_not_count():
    claims = {"https://api.openai.com/auth": {"chatgpt_account_id": "x\r\ny: z"}}

    assert read_auth_json(auth_json(access_token=jwt(**claims), account_id="given")).seat.account_id == "given"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "1969-01-01T00:00:00"])
def test_a_refresh_before_the_epoch_is_unknown(moment):
    content = json.dumps({"tokens": {"access_token": "a", "refresh_token": "r"}, "last_refresh": moment}).encode()

    assert read_auth_json(content).refreshed_at is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content):
    with contextlib.suppress(InputRefused):
        read_auth_json(content)


@given(st.text(max_size=200))
def test_any_text_may_stand_for_a_token(token):
    assert isinstance(claims_of(token), dict)


@pytest.mark.parametrize("expiry", ["soon", True, -5, 1e300, None])
def test_an_expiry_that_makes_no_sense_is_unknown(expiry):
    assert expiry_of(jwt(exp=expiry)) is None


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"not json", "auth_json"),
        (b"[]", "auth_json"),
        (b'{"tokens": null}', "auth_json.tokens"),
        (b'{"tokens": [], "other": 1}', "auth_json.tokens"),
        (b'{"OPENAI_API_KEY": "sk-secret", "tokens": null}', "auth_json.OPENAI_API_KEY"),
        (b'{"tokens": {"access_token": "secret-value"}}', "auth_json.tokens.refresh_token"),
        (b'{"tokens": {"access_token": "secret value", "refresh_token": "r"}}', "auth_json.tokens.access_token"),
        (
            b'{"tokens": {"id_token": "\\ud800", "access_token": "a", "refresh_token": "r"}}',
            "auth_json.tokens.id_token",
        ),
        (b"[" * 100_000, "auth_json"),
        (b" " * (MAX_AUTH_JSON + 1), "auth_json"),
    ],
)
def test_a_refusal_names_the_field_and_never_a_value(content, field):
    with pytest.raises(InputRefused) as refused:
        read_auth_json(content)

    assert refused.value.field == field
    assert "secret" not in str(refused.value)
    assert not re.search(r"_[A-Z][a-z]|^:", str(refused.value)), "that is for us, not for who reads it"
