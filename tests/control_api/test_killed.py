"""`kill -9` at random points of refreshes and imports: no account loses its usable token, save in the one window that a
single-use token leaves open, and that one is reported.
"""

import asyncio
import collections
import contextlib
import random
import sqlite3

import httpx
import pytest

from tests.control_api.running import ControlProcess, eventually

ROUNDS, ACCOUNTS, AT_ONCE = 5, 40, 4


def open_intents(folder):
    with contextlib.closing(sqlite3.connect(folder / "control" / "control.db")) as database:
        return database.execute("SELECT count(*) FROM refresh_intents").fetchone()[0]


async def refresh_all(http, queue):
    while queue:
        await quietly(http.post(f"/api/accounts/{queue.popleft()}/refresh"))


async def quietly(request):
    with contextlib.suppress(httpx.HTTPError):
        await request


@pytest.mark.timeout(180)
async def test_no_account_is_silently_broken_by_kills_at_random_points(tmp_path, simulator, admission_target):
    source = random.Random(20_260)
    process = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target, STAGE_TOKEN_REFRESH=100)
    await process.start()
    made = [await simulator.account() for _ in range(ACCOUNTS)]
    async with process.client() as http:
        answers = [await http.post("/api/accounts/import", json=account["auth_json"]) for account in made]
        ids = [answer.json()["id"] for answer in answers]

    for _ in range(ROUNDS):
        newcomer = await simulator.account()
        async with process.client() as http:
            queue = collections.deque(source.sample(ids, len(ids)))
            running = [asyncio.create_task(refresh_all(http, queue)) for _ in range(AT_ONCE)]
            running.append(asyncio.create_task(quietly(http.post("/api/accounts/import", json=newcomer["auth_json"]))))
            await asyncio.sleep(source.uniform(0.05, 1.0))  # the kill's own point in time, not a wait for anything
            process.process.kill()
            await asyncio.gather(*running)
        await process.start()

    async with process.client() as http:
        await eventually(lambda: not open_intents(tmp_path), what="every interrupted exchange has been dealt with")
        accounts = (await http.get("/api/accounts", params={"limit": 500})).json()["items"]
        lost = [account for account in accounts if account["status"] != "active"]
        usable = [account["id"] for account in accounts if account["status"] == "active"]
        answers = await asyncio.gather(*(http.post(f"/api/accounts/{account_id}/refresh") for account_id in usable))
    process.process.stop()

    assert {account["id"] for account in accounts} >= set(ids)
    assert all(account["status"] == "reauth_required" for account in lost)
    assert all(account["status_reason"].startswith("refresh_token_reused") for account in lost)
    assert [answer.status_code for answer in answers] == [200] * len(usable), [answer.text for answer in answers]
    assert len(lost) <= ROUNDS * AT_ONCE  # at most what was under way when it was killed


async def test_a_killed_controller_starts_again_at_once(tmp_path, simulator, admission_target):
    process = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target, LOCK_TTL=600)
    await process.start()
    process.process.kill()

    await process.start()  # within its deadline, not within the lock's TTL
    process.process.stop()


async def test_a_second_controller_on_the_same_database_refuses_to_start(tmp_path, simulator, admission_target):
    first = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target, LOCK_TTL=2)
    second = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target, LOCK_TTL=2)
    second.log = tmp_path / "second.log"
    await first.start()

    with pytest.raises(AssertionError):
        await second.start()
    first.process.stop()
    second.process.stop()

    assert second.process.process.returncode == 1
    assert "another control API runs on this database" in second.log.read_text()
