from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from control_api.accounts.login import LoginService
from control_api.errors import Conflict, InputRefused, NotFound
from tests.control_api.running import eventually


@pytest.fixture
async def logins(parts):
    service = LoginService(
        database=parts.database,
        accounts=parts.accounts,
        vault=parts.vault,
        auth_server=parts.auth_server,
        callback_port=0,
        now=parts.clock,
    )
    yield service
    await service._listener.stop()
    for task in list(service._devices.values()):
        task.cancel()


async def browse(url, *, login_hint=""):
    """Does what a browser does: follows the redirect back to the listener."""
    hint = f"&login_hint={login_hint}" if login_hint else ""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False) as http:
        redirect = await http.get(url + hint)
        return redirect.headers["location"]


async def get(url):
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(url.replace("localhost", "127.0.0.1"))


async def test_a_browser_login_makes_an_account_and_frees_the_port(parts, logins):
    simulated = (await parts.simulator.account(email="ann@example.com"))["id"]
    started = await logins.start("browser")
    query = parse_qs(urlsplit(started.authorize_url).query)

    page = await get(await browse(started.authorize_url, login_hint=simulated))
    await logins.sweep()

    flow = await logins.get(started.flow.id)
    account = await parts.accounts.get(flow.account_id)
    assert page.status_code == 200
    assert (flow.status, account.email, account.status) == ("done", "ann@example.com", "active")
    assert query["code_challenge_method"] == ["S256"]
    assert logins._listener._server is None
    assert flow.secret is None


async def test_the_pasted_callback_url_finishes_a_login_too(parts, logins):
    await parts.simulator.account()
    started = await logins.start("browser")

    flow = await logins.complete(started.flow.id, await browse(started.authorize_url))

    assert flow.status == "done"
    with pytest.raises(Conflict):
        await logins.complete(started.flow.id, "http://localhost/auth/callback?code=x&state=y")


async def test_a_callback_of_another_login_is_refused(parts, logins):
    await parts.simulator.account()
    first, second = await logins.start("browser"), await logins.start("browser")

    with pytest.raises(InputRefused):
        await logins.complete(second.flow.id, await browse(first.authorize_url))
    stranger = await get(f"http://localhost:{logins.callback_port}/auth/callback?code=x&state=nobody")
    nonsense = await get(f"http://localhost:{logins.callback_port}/")

    assert (await logins.get(second.flow.id)).status == "pending"
    assert "No login is waiting" in stranger.text
    assert nonsense.status_code == 400


async def test_an_abandoned_login_expires_and_stops_listening(parts, logins):
    started = await logins.start("browser")
    parts.clock.forward(901)

    await logins.sweep()

    assert (await logins.get(started.flow.id)).status == "expired"
    assert logins._listener._server is None


async def test_a_targeted_login_reauthenticates_its_seat(parts, logins):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="end_families")
    with pytest.raises(Exception, match="refused"):
        await parts.refresh.refresh(account_id, reason="test")
    before = await parts.accounts.get(account_id)

    started = await logins.start("browser", account_id=account_id)
    await get(await browse(started.authorize_url, login_hint=simulated))

    after = await parts.accounts.get(account_id)
    assert (before.status, after.status) == ("reauth_required", "active")
    assert after.credential_version == before.credential_version + 1


async def test_a_targeted_login_of_another_seat_changes_nothing(parts, logins):
    account_id, _ = await parts.sign_in()
    other = (await parts.simulator.account())["id"]
    started = await logins.start("browser", account_id=account_id)

    page = await get(await browse(started.authorize_url, login_hint=other))

    flow = await logins.get(started.flow.id)
    assert flow.status == "failed"
    assert "another seat" in page.text
    assert (await parts.accounts.get(account_id)).credential_version == 1
    with pytest.raises(NotFound):
        await logins.start("browser", account_id="nobody")


async def test_a_device_login_is_finished_by_typing_the_code(parts, logins):
    simulated = (await parts.simulator.account(email="bob@example.com"))["id"]
    started = await logins.start("device")
    approve = {"user_code": started.flow.user_code, "login_hint": simulated}
    await parts.simulator.http.get("/codex/device", params=approve)

    async def ended():
        flow = await logins.get(started.flow.id)
        return flow.status != "pending" and flow

    flow = await eventually(ended)
    assert flow.status == "done"
    assert (await parts.accounts.get(flow.account_id)).email == "bob@example.com"
    assert started.verification_url.endswith("/codex/device")


async def test_a_cancelled_login_stays_cancelled_and_only_some_ended_ones_are_kept(parts, logins):
    started = await logins.start("device")

    cancelled = await logins.cancel(started.flow.id)
    for _ in range(20):
        await logins.cancel((await logins.start("browser")).flow.id)
    await logins.sweep()

    assert cancelled.status == "cancelled"
    assert len(await logins.list()) == 16
