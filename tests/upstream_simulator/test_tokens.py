import base64
import json

import pytest

from upstream_simulator.tokens import CLAIMS, Seat, TokenBook, TokenRejected

SEAT = Seat(account="acct_1", email="a@example.com", plan="pro", chatgpt_account_id="ws_1", user_id="user_1")


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(clock):
    return TokenBook(clock=clock)


def rejected(action, *arguments):
    with pytest.raises(TokenRejected) as raised:
        action(*arguments)
    return raised.value.code


def test_an_access_token_belongs_to_its_account_until_it_expires(book, clock):
    token = book.issue(SEAT, ttl=60).access_token
    before = book.account_of(token)
    clock.now += 60

    assert before == "acct_1"
    assert rejected(book.account_of, token) == "token_expired"


def test_a_token_that_was_never_issued_is_not_known(book):
    assert rejected(book.account_of, "eyJ.made.up") == "invalid_authentication"
    assert rejected(book.exchange, "rt_made_up") == "invalid_refresh_token"


def test_a_refresh_token_is_good_for_one_exchange(book):
    first = book.issue(SEAT, ttl=60)
    second = book.exchange(first.refresh_token)

    assert book.account_of(second.access_token) == "acct_1"
    assert rejected(book.exchange, first.refresh_token) == "refresh_token_reused"


def test_using_a_refresh_token_twice_ends_its_family_but_no_other(book):
    first = book.issue(SEAT, ttl=60)
    other = book.issue(SEAT, ttl=60)
    second = book.exchange(first.refresh_token)
    rejected(book.exchange, first.refresh_token)

    assert rejected(book.exchange, second.refresh_token) == "refresh_token_invalidated"
    assert book.exchange(other.refresh_token)


def test_an_exchange_leaves_the_older_access_token_alive(book):
    first = book.issue(SEAT, ttl=60)
    book.exchange(first.refresh_token)

    assert book.account_of(first.access_token) == "acct_1"


def test_tokens_can_be_expired_and_taken_back(book):
    first = book.issue(SEAT, ttl=60)
    book.expire_access_tokens("acct_1")
    second = book.exchange(first.refresh_token)
    book.invalidate_access_tokens("acct_1")
    book.invalidate_refresh_tokens("acct_1")

    assert rejected(book.account_of, second.access_token) == "token_invalidated"
    assert rejected(book.exchange, second.refresh_token) == "refresh_token_invalidated"


def test_the_tokens_carry_the_claims_that_clients_read(book):
    tokens = book.issue(SEAT, ttl=60)
    part = tokens.access_token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    assert (claims["email"], claims["exp"]) == ("a@example.com", 1_000_060)
    assert claims[CLAIMS]["chatgpt_account_id"] == "ws_1"
    assert claims[CLAIMS]["chatgpt_plan_type"] == "pro"
