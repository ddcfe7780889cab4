"""The REST API over HTTP: what operators do, and what they are told."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from control_api.paging import encode_cursor
from control_api.settings import ControlSettings
from service_runtime.process import StartupError
from service_runtime.settings import SettingsError
from tests.control_api.running import client_of, running_control, settings_for

PROBLEM = "urn:sluicegate:problem:"


async def test_an_auth_json_is_imported_as_a_file_or_as_the_body_and_again_it_is_the_same_account(control, simulator):
    made = await simulator.account(email="ann@example.com", plan="pro")
    content = json.dumps(made["auth_json"]).encode()

    first = await control.http.post("/api/accounts/import", files={"auth_json": ("auth.json", content)})
    again = await control.http.post("/api/accounts/import", json=made["auth_json"])

    account = first.json()
    assert (first.status_code, again.status_code) == (201, 200)
    assert (account["email"], account["plan"], account["status"], account["kind"]) == (
        "ann@example.com",
        "pro",
        "active",
        "chatgpt",
    )
    assert again.json()["id"] == account["id"]
    assert again.json()["credential_version"] == 2


@pytest.mark.parametrize(
    ("expires_at", "shown"),
    [
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z"),
    ],
)
async def test_moments_at_the_edges_of_the_calendar_are_moved_inside(lone_control, expires_at, shown):
    made = await lone_control.call("POST", "/api/keys", {"name": "edge", "expires_at": expires_at})
    imported = await lone_control.call(
        "POST",
        "/api/accounts/import",
        {"tokens": {"access_token": "a", "refresh_token": "r"}, "last_refresh": expires_at},
    )

    listed = await lone_control.call("GET", "/api/accounts")

    assert made["expires_at"] == shown
    assert [item["id"] for item in listed["items"]] == [imported["id"]]


async def test_importing_again_reactivates(control, simulator):
    made = await simulator.account()
    account_id = await control.import_account(made)
    await control.call("POST", f"/api/accounts/{account_id}/pause")

    await control.import_account(made)

    assert (await control.account(account_id))["status"] == "active"


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"auth_json": ("a", b"{}")}, 422),
        ({"other": ("a", b"{}")}, 422),
        ([("auth_json", ("a", b"{}")), ("auth_json", ("b", b"{}"))], 400),
        ({"auth_json": ("a", b" " * (1024 * 1024 + 1))}, 422),
        ({"auth_json": ("a", b" " * (3 * 1024 * 1024))}, 413),
    ],
)
async def test_a_wrong_upload_is_a_problem_and_no_account(control, files, status):
    answer = await control.http.post("/api/accounts/import", files=files)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await control.call("GET", "/api/accounts"))["items"] == []


async def test_a_body_without_a_length_is_bounded_too(control):
    async def endless():
        for _ in range(64):
            yield b" " * 64 * 1024

    answer = await control.http.post("/api/keys", content=endless(), headers={"content-type": "application/json"})

    assert answer.status_code == 413


async def test_accounts_are_paged_and_filtered(control, simulator):
    ids = sorted([await control.import_account(await simulator.account()) for _ in range(5)])
    await control.call("POST", f"/api/accounts/{ids[0]}/pause")

    seen: list[str] = []
    page: dict[str, Any] = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        page = await control.call("GET", f"/api/accounts?limit=2&cursor={page['next_cursor']}")
        seen += [account["id"] for account in page["items"]]
    paused = await control.call("GET", "/api/accounts?status=paused")

    assert seen == ids
    assert [account["id"] for account in paused["items"]] == [ids[0]]
    await control.call("GET", "/api/accounts?cursor=%21%21", status=422)


async def test_sign_ins_are_paged_newest_first_also_when_one_begins_between_two_pages(control):
    started = [(await control.call("POST", "/api/logins", {"method": "device"}, status=201))["id"] for _ in range(5)]

    first = await control.call("GET", "/api/logins?limit=2")
    await control.call("POST", "/api/logins", {"method": "device"}, status=201)
    second = await control.call("GET", f"/api/logins?limit=2&cursor={first['next_cursor']}")
    third = await control.call("GET", f"/api/logins?limit=2&cursor={second['next_cursor']}")

    seen = [login["id"] for page in (first, second, third) for login in page["items"]]
    assert seen == list(reversed(started))
    assert third["next_cursor"] is None


@pytest.mark.parametrize("told", ["1.5", "soon login_1", "nan login_1", "inf login_1", " login_1", "1.5 "])
async def test_what_is_no_cursor_of_sign_ins_names_the_field(control, told):
    problem = await control.call("GET", f"/api/logins?cursor={encode_cursor(told)}", status=422)

    assert [error["field"] for error in problem["errors"]] == ["cursor"]


async def test_the_life_of_an_account_is_told_in_its_history(control, simulator):
    account_id = await control.import_account(await simulator.account())
    for action in ("pause", "resume", "refresh"):
        await control.call("POST", f"/api/accounts/{account_id}/{action}")

    events = await control.events(account_id)
    await control.call("DELETE", f"/api/accounts/{account_id}", status=204)
    gone = await control.call("GET", f"/api/accounts/{account_id}", status=404)

    assert events == ["imported", "paused", "resumed", "refreshed"]
    assert gone["type"] == f"{PROBLEM}not-found"


async def test_an_account_that_must_sign_in_cannot_be_resumed(control, simulator):
    made = await simulator.account()
    account_id = await control.import_account(made)
    await simulator.change(made["id"], tokens="end_families")

    refused = await control.call("POST", f"/api/accounts/{account_id}/refresh", status=409)
    resumed = await control.call("POST", f"/api/accounts/{account_id}/resume", status=409)

    assert refused["type"] == f"{PROBLEM}sign-in-required"
    assert refused["code"] == "refresh_token_invalidated"
    assert resumed["code"] == "sign_in_required"


async def test_an_api_key_account_is_added_and_changed_and_its_key_never_shown(control):
    body = {"kind": "api_key", "name": "Local", "base_url": "http://127.0.0.1:9/v1/", "api_key": "sk-very-secret"}
    added = await control.http.post("/api/accounts", json=body)
    account_id = added.json()["id"]
    changed = await control.http.patch(
        f"/api/accounts/{account_id}", json={"api_key": "sk-other-secret", "models": ["a", "a", "b"], "weight": 2}
    )

    assert added.status_code == 201
    assert added.json()["base_url"] == "http://127.0.0.1:9/v1"
    assert changed.json()["models"] == ["a", "b"]
    assert changed.json()["credential_version"] == 2
    assert "secret" not in added.text + changed.text


async def test_a_base_url_that_is_not_allowed_is_refused_with_its_field(tmp_path):
    settings = settings_for(tmp_path, allow_private_upstreams="false")
    async with running_control(settings) as running:
        body = {"kind": "api_key", "name": "x", "base_url": "http://169.254.169.254/v1", "api_key": "sk"}
        refused = await running.call("POST", "/api/accounts", body, status=422)

    assert refused["errors"][0]["field"] == "base_url"


async def test_a_wrong_field_is_named(control):
    refused = await control.call("PATCH", "/api/limits", {"resources": {"lanes/proxy_http": {"limit": -1}}}, status=422)
    unknown = await control.call("POST", "/api/keys", {"name": "x", "limit": 1}, status=422)

    assert refused["errors"][0]["field"] == "resources.lanes/proxy_http.limit"
    assert unknown["errors"][0]["field"] == "limit"


async def test_environment_seeds_hold_until_somebody_changes_them(tmp_path):
    async with running_control(settings_for(tmp_path, lane_proxy_http=11, lane_proxy_compact=0)) as running:
        seeded = (await running.call("GET", "/api/limits"))["resources"]
        await running.call("PATCH", "/api/limits", {"resources": {"lanes/proxy_http": {"limit": 5}}})
    async with running_control(settings_for(tmp_path, lane_proxy_http=12)) as running:
        restarted = (await running.call("GET", "/api/limits"))["resources"]

    assert (seeded["lanes/proxy_http"]["limit"], seeded["lanes/proxy_http"]["sources"]["limit"]) == (11, "environment")
    assert seeded["lanes/proxy_compact"]["limit"] == 0
    assert (restarted["lanes/proxy_http"]["limit"], restarted["lanes/proxy_http"]["sources"]["limit"]) == (5, "changed")


async def test_while_admission_is_away_operators_get_in_and_state_says_so(lone_control):
    answers = await asyncio.gather(*(lone_control.http.get("/api/accounts") for _ in range(40)))
    state = await lone_control.call("GET", "/api/state", status=503)

    assert {answer.status_code for answer in answers} == {200}
    assert state["type"] == f"{PROBLEM}admission-unavailable"
    assert state["retry_after"] >= 1


async def test_usage_is_served_to_clients_with_a_key_and_to_this_host(control, simulator):
    account_id = await control.import_account(await simulator.account(plan="plus"))
    await control.call("POST", f"/api/usage/{account_id}/refresh")
    made = await control.call("POST", "/api/keys", {"name": "k"}, status=201)

    async with client_of(control.app, token=made["key"], peer="10.1.1.1") as client:
        with_key = [await client.get(path) for path in ("/api/codex/usage", "/backend-api/wham/usage", "/v1/usage")]
    async with client_of(control.app, token=None, peer="127.0.0.1") as here:
        on_this_host = await here.get("/api/codex/usage")
    async with client_of(control.app, token=None, peer="10.1.1.1") as stranger:
        refused = await stranger.get("/api/codex/usage")
        by_hash = await stranger.get("/v1/usage", headers={"x-sluicegate-key-sha256": "00" * 32})

    assert [answer.status_code for answer in with_key] == [200, 200, 200]
    assert with_key[0].json() == with_key[1].json() == on_this_host.json()
    assert with_key[0].json()["rate_limit"]["primary_window"]["used_percent"] == 4
    assert with_key[2].json()["account_pool_usage"] == {"primary": 4.0, "secondary": 11.0}
    assert (refused.status_code, by_hash.status_code) == (401, 401)


async def test_no_token_is_readable_in_the_files_of_the_data_directory(control, simulator, tmp_path):
    made = await simulator.account()
    await control.import_account(made)

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("control.db*"))
    assert made["id"].encode() in stored
    assert not any(token.encode() in stored for name, token in made["auth_json"]["tokens"].items() if "token" in name)


async def test_a_foreign_vault_key_is_noticed_at_start(tmp_path, simulator):
    async with running_control(settings_for(tmp_path, simulator=simulator)) as running:
        await running.import_account(await simulator.account())
    (tmp_path / "vault.key").write_text(Fernet.generate_key().decode())

    with pytest.raises(StartupError, match="another key"):
        async with running_control(settings_for(tmp_path, simulator=simulator)):
            pass


async def test_beside_stored_tokens_no_second_key_is_made_and_the_first_one_can_be_put_back(tmp_path, simulator):
    settings = settings_for(tmp_path, simulator=simulator)
    async with running_control(settings) as running:
        account_id = await running.import_account(await simulator.account())
    (tmp_path / "vault.key").rename(tmp_path / "backup.key")

    with pytest.raises(StartupError, match="another key"):
        async with running_control(settings):
            pass
    assert not (tmp_path / "vault.key").exists()
    (tmp_path / "backup.key").rename(tmp_path / "vault.key")
    async with running_control(settings) as running:
        assert (await running.account(account_id))["status"] == "active"


async def test_a_key_that_was_lost_before_anything_was_stored_is_made_again(tmp_path):
    async with running_control(settings_for(tmp_path)):
        (tmp_path / "vault.key").unlink()
    async with running_control(settings_for(tmp_path)):
        assert (tmp_path / "vault.key").exists()


async def test_the_upstream_of_the_settings_is_the_one_of_all_chatgpt_accounts(tmp_path, simulator):
    async with running_control(settings_for(tmp_path, simulator=simulator)) as running:
        account_id = await running.import_account(await simulator.account())
    async with running_control(settings_for(tmp_path, upstream_base_url="https://moved.example/api/")) as running:
        account = await running.account(account_id)

    assert account["base_url"] == "https://moved.example/api"


def test_settings_are_wrong_all_at_once_and_never_repeat_a_secret(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_CONTROL_ADMISSION_TOKEN", "very-secret")
    monkeypatch.setenv("SLUICEGATE_CONTROL_PORT", "many")
    monkeypatch.setenv("SLUICEGATE_CONTROL_LANE_PROXY_HTTP", "-1")

    with pytest.raises(SettingsError) as error:
        ControlSettings.from_environment()

    assert len(error.value.problems) == 2
    assert "very-secret" not in str(error.value)


async def test_unknown_paths_and_methods_are_problems(control):
    missing = await control.http.get("/api/nothing")
    wrong = await control.http.put("/api/accounts")

    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert {missing.headers["content-type"], wrong.headers["content-type"]} == {"application/problem+json"}
    assert isinstance(wrong, httpx.Response)
