import pytest

from upstream_simulator.accounts import AccountBook, ArmedFaults, Kind, Surface, UnknownAccount
from upstream_simulator.faults import NO_FAULTS, Faults
from upstream_simulator.tokens import TokenBook, TokenRejected


@pytest.fixture
def book():
    return AccountBook(tokens=TokenBook(clock=lambda: 1000.0), clock=lambda: 1000.0, access_token_ttl=60)


def test_an_account_signs_in_with_tokens_or_with_a_key(book):
    chatgpt = book.create(plan="pro")
    api_key = book.create(kind=Kind.API_KEY)

    assert book.by_access_token(book.sign_in(chatgpt).access_token) is chatgpt
    assert book.by_api_key(api_key.api_key) is api_key
    with pytest.raises(TokenRejected, match="invalid_api_key"):
        book.by_api_key("sk-made-up")


def test_the_auth_json_is_what_codex_would_have_written(book):
    account = book.create(account_id="acct_1", chatgpt_account_id="ws_1")
    auth_json = book.auth_json(account)

    assert auth_json["tokens"]["account_id"] == "ws_1"
    assert auth_json["last_refresh"] == "1970-01-01T00:16:40Z"
    assert book.by_access_token(auth_json["tokens"]["access_token"]) is account


def test_the_account_at_the_browser_is_the_latest_with_chatgpt(book):
    nobody = book.latest()
    book.create(account_id="one")
    book.create(account_id="two")
    book.create(account_id="three", kind=Kind.API_KEY)

    assert nobody is None
    assert book.latest().id == "two"


def test_faults_can_be_armed_for_a_number_of_requests(book):
    account = book.create()
    account.armed[Surface.USAGE] = ArmedFaults(Faults(status=403), "status=403", times=2)
    seen = [account.take_faults(Surface.USAGE) for _ in range(3)]

    assert seen == [Faults(status=403), Faults(status=403), NO_FAULTS]
    assert account.take_faults(Surface.RESPONSES) == NO_FAULTS


def test_an_unknown_account_is_an_error(book):
    with pytest.raises(UnknownAccount):
        book.get("nobody")
