import pytest

from control_api.auth import FAILURE_WINDOW, MAX_FAILURES, MAX_PEERS, AdminToken, FailureLimit, load_admin_token
from service_runtime.process import StartupError
from tests.control_api.running import ADMIN, client_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_only_the_token_matches():
    token = AdminToken("right")

    assert token.matches("right")
    assert not any(token.matches(wrong) for wrong in ("", "wrong", "right ", "righ", "ключ"))


def test_the_token_is_made_once_with_nobody_else_reading_it(tmp_path):
    first = load_admin_token(None, tmp_path)
    second = load_admin_token(None, tmp_path)

    assert first == second
    assert len(first) >= 32
    assert (tmp_path / "admin-token").stat().st_mode & 0o777 == 0o600


def test_an_empty_token_file_is_an_error_and_no_open_door(tmp_path):
    (tmp_path / "admin-token").write_text("\n")

    with pytest.raises(StartupError):
        load_admin_token(None, tmp_path)


def test_an_address_with_too_many_failures_waits_until_its_window_is_over():
    clock = Clock()
    limit = FailureLimit(clock=clock)
    for _ in range(MAX_FAILURES):
        assert limit.refused_for("10.0.0.1") is None
        limit.note("10.0.0.1")

    refused_for = limit.refused_for("10.0.0.1")
    clock.now = FAILURE_WINDOW + 1

    assert refused_for is not None
    assert 1 <= refused_for <= FAILURE_WINDOW + 1
    assert limit.refused_for("10.0.0.2") is None
    assert limit.refused_for("10.0.0.1") is None


def test_the_addresses_remembered_are_bounded():
    limit = FailureLimit(clock=Clock())

    for number in range(MAX_PEERS + 50):
        limit.note(str(number))

    assert len(limit._failures) == MAX_PEERS


@pytest.mark.parametrize("token", [None, "wrong", ADMIN + "x"])
async def test_without_the_admin_token_nothing_below_api_answers(lone_control, token):
    async with client_of(lone_control.app, token=token) as stranger:
        answers = [
            await stranger.get(path)
            for path in ("/api/accounts", "/api/nothing", "/api/state", "/api/keys/../accounts")
        ]
        health = await stranger.get("/health/live")

    assert {answer.status_code for answer in answers} == {401}
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
    assert answers[0].json()["type"] == "urn:sluicegate:problem:admin-token-required"
    assert health.status_code == 200


async def test_guessing_is_refused_for_a_while_even_with_the_right_token(lone_control):
    async with client_of(lone_control.app, token="guess", peer="10.9.9.9") as guesser:
        statuses = [(await guesser.get("/api/accounts")).status_code for _ in range(MAX_FAILURES + 1)]
    async with client_of(lone_control.app, peer="10.9.9.9") as lucky:
        refused = await lucky.get("/api/accounts")
    async with client_of(lone_control.app, peer="10.9.9.8") as elsewhere:
        served = await elsewhere.get("/api/accounts")

    assert statuses == [401] * MAX_FAILURES + [429]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert served.status_code == 200
