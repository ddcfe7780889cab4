import asyncio
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from control_api.accounts.login import LoginService
from control_api.errors import Conflict, DatabaseBusy, InputRefused, NotFound
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
    for task in [*service._devices.values(), *service._finishing.values()]:
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
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", logins.callback_port)
        writer.write(b"GET //[ HTTP/1.1\r\n\r\n")
        odd = await reader.read()
        writer.close()

    assert (await logins.get(second.flow.id)).status == "pending"
    assert "No login is waiting" in stranger.text
    assert nonsense.status_code == 400
    assert odd.startswith(b"HTTP/1.1 400 ")


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
    assert len((await logins.page(before=None, limit=100))[0]) == 16


async def test_two_callbacks_at_once_redeem_the_code_once_and_both_hear_of_the_account(parts, logins, monkeypatch):
    await parts.simulator.account()
    redeem, codes = parts.auth_server.redeem, []

    async def counted(code, **more):
        codes.append(code)
        return await redeem(code, **more)

    monkeypatch.setattr(parts.auth_server, "redeem", counted)
    started = await logins.start("browser")
    callback = await browse(started.authorize_url)

    pasted, page = await asyncio.gather(logins.complete(started.flow.id, callback), get(callback))

    assert len(codes) == 1
    assert pasted.status == "done"
    assert "You are signed in" in page.text


class BusyDatabase:
    """Refuses to store accounts until it is told otherwise."""

    def __init__(self, parts, monkeypatch):
        self.busy, self.tries = True, 0
        self._accept = parts.accounts.accept
        monkeypatch.setattr(parts.accounts, "accept", self._try)

    async def _try(self, *arguments, **named):
        self.tries += 1
        if self.busy:
            raise DatabaseBusy("Another program holds the database.", retry_after=2)
        return await self._accept(*arguments, **named)


async def test_a_redeemed_login_waits_for_the_database_though_its_time_and_its_caller_are_gone(
    parts, logins, monkeypatch
):
    await parts.simulator.account()
    started = await logins.start("browser")
    callback = await browse(started.authorize_url)
    database = BusyDatabase(parts, monkeypatch)
    caller = asyncio.create_task(logins.complete(started.flow.id, callback))
    await eventually(lambda: database.tries)
    caller.cancel()
    parts.clock.forward(901)
    await logins.sweep()

    database.busy = False

    async def done():
        return (await logins.get(started.flow.id)).status == "done"

    await eventually(done)


async def test_a_browser_that_waits_too_long_for_the_database_gets_a_sentence(parts, logins, monkeypatch):
    await parts.simulator.account()
    monkeypatch.setattr("control_api.accounts.login.FINISH_WITHIN", 0.05)
    started = await logins.start("browser")
    callback = await browse(started.authorize_url)
    database = BusyDatabase(parts, monkeypatch)

    page = await get(callback)
    database.busy = False

    assert (page.status_code, "not finished yet" in page.text) == (200, True)
    await eventually(lambda: not logins._finishing)
    assert (await logins.get(started.flow.id)).status == "done"


async def test_an_approved_device_login_waits_for_the_database(parts, logins, monkeypatch):
    simulated = (await parts.simulator.account())["id"]
    database = BusyDatabase(parts, monkeypatch)
    started = await logins.start("device")
    approve = {"user_code": started.flow.user_code, "login_hint": simulated}
    await parts.simulator.http.get("/codex/device", params=approve)
    await eventually(lambda: database.tries)

    database.busy = False

    await eventually(lambda: not logins._finishing and not logins._devices)
    assert (await logins.get(started.flow.id)).status == "done"
