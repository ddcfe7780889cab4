"""The auth server, as the control API meets it."""

import asyncio
import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

from upstream_simulator.auth_server import CLIENT_ID
from upstream_simulator.stats import fingerprint

VERIFIER = "v" * 43
CALLBACK = "http://localhost:1455/auth/callback"
AUTHORIZE = {
    "response_type": "code",
    "client_id": CLIENT_ID,
    "redirect_uri": CALLBACK,
    "scope": "openid profile email offline_access",
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode(),
    "code_challenge_method": "S256",
    "state": "st_1",
}


async def refresh(client, token=None):
    token = token or client.auth_json["tokens"]["refresh_token"]
    body = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": token, "scope": "openid"}
    return await client.simulator.http.post("/oauth/token", json=body)


async def redeem(simulator, code, redirect_uri=CALLBACK, verifier=VERIFIER):
    return await simulator.http.post(
        "/oauth/token",
        data={
            "grant_type": "authorization_code",
            "client_id": CLIENT_ID,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        },
    )


async def test_a_refresh_token_rotates_and_is_good_once(client):
    first = await refresh(client)
    again = await refresh(client)
    next_one = await refresh(client, first.json()["refresh_token"])

    assert first.status_code == 200
    assert {"access_token", "refresh_token", "id_token"} <= first.json().keys()
    assert (again.status_code, again.json()["error"]["code"]) == (401, "refresh_token_reused")
    assert next_one.json()["error"]["code"] == "refresh_token_invalidated"


async def test_of_exchanges_at_the_same_time_one_is_granted(client):
    answers = await asyncio.gather(*(refresh(client) for _ in range(5)))
    stats = await client.simulator.stats()

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]
    token = fingerprint(client.auth_json["tokens"]["refresh_token"])
    assert stats["refresh_exchanges"][token] == {"attempts": 5, "granted": 1}


async def test_a_refused_exchange_leaves_the_refresh_token_good(client):
    await client.change(simulate="status=500", on="refresh", times=1)
    refused = await refresh(client)
    granted = await refresh(client)

    assert (refused.status_code, granted.status_code) == (500, 200)


async def test_a_login_at_the_browser_ends_in_tokens_of_that_account(simulator):
    await simulator.account(id="one", email="one@example.com")
    await simulator.account(id="two")
    redirect = await simulator.http.get("/oauth/authorize", params={**AUTHORIZE, "login_hint": "one"})
    answer = {name: values[0] for name, values in parse_qs(urlsplit(redirect.headers["location"]).query).items()}
    tokens = (await redeem(simulator, answer["code"])).json()
    usage = await simulator.http.get(
        "/backend-api/wham/usage",
        headers={"authorization": f"Bearer {tokens['access_token']}", "chatgpt-account-id": "one"},
    )

    assert redirect.status_code == 302
    assert redirect.headers["location"].startswith(CALLBACK)
    assert answer["state"] == "st_1"
    assert usage.status_code == 200


async def test_a_login_needs_the_right_client_and_pkce(simulator):
    wrong_client = await simulator.http.get("/oauth/authorize", params={**AUTHORIZE, "client_id": "app_other"})
    without_pkce = await simulator.http.get("/oauth/authorize", params={**AUTHORIZE, "code_challenge_method": "plain"})
    foreign_address = await simulator.http.get(
        "/oauth/authorize", params={**AUTHORIZE, "redirect_uri": "https://example.com/"}
    )
    made_up_code = await redeem(simulator, "ac_made_up")

    assert [a.status_code for a in (wrong_client, without_pkce, foreign_address, made_up_code)] == [400] * 4


async def test_a_device_signs_in_once_a_person_typed_its_code(simulator):
    account = await simulator.account()
    begun = (await simulator.http.post("/api/accounts/deviceauth/usercode", json={"client_id": CLIENT_ID})).json()
    question = {"device_auth_id": begun["device_auth_id"], "user_code": begun["user_code"]}
    pending = await simulator.http.post("/api/accounts/deviceauth/token", json=question)
    page = await simulator.http.get("/codex/device", params={"user_code": begun["user_code"]})
    grant = (await simulator.http.post("/api/accounts/deviceauth/token", json=question)).json()
    tokens = await redeem(
        simulator, grant["authorization_code"], f"{simulator.url}/deviceauth/callback", grant["code_verifier"]
    )

    assert (pending.status_code, page.status_code, tokens.status_code) == (403, 200, 200)
    assert pending.json()["error"]["code"] == "authorization_pending"
    assert account.id


async def test_only_the_known_client_is_served(client):
    body = {"grant_type": "refresh_token", "client_id": "app_other", "refresh_token": "rt"}
    foreign = await client.simulator.http.post("/oauth/token", json=body)
    strange = await client.simulator.http.post("/oauth/token", json={"grant_type": "password"})

    assert (foreign.status_code, strange.status_code) == (401, 400)
