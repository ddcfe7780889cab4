"""The process: it starts, says what is wrong, serves its metrics, and stops in order."""

import httpx
import pytest

from tests.control_api.running import ControlProcess, Process, control_environment, eventually, free_port


async def test_it_serves_until_it_is_told_to_stop_and_frees_its_lock(tmp_path, simulator, admission_target):
    metrics = free_port()
    process = ControlProcess(
        tmp_path, simulator=simulator, admission_target=admission_target, METRICS_PORT=metrics, LOCK_TTL=600
    )
    await process.start()
    async with process.client() as http:
        await http.post("/api/accounts/import", json=(await simulator.account())["auth_json"])
        spoofed = await http.get("/api/codex/usage", headers={"authorization": "", "x-forwarded-for": "10.0.0.1"})
    async with httpx.AsyncClient(trust_env=False) as http:

        async def counted():
            return 'accounts{status="active"} 1.0' in (await http.get(f"http://127.0.0.1:{metrics}/metrics")).text

        await eventually(counted)
    process.process.stop()

    await process.start()  # at once: the lock was given back
    process.process.stop()
    assert process.process.process.returncode == 0
    assert spoofed.status_code == 200
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PORT": "many"}, "SLUICEGATE_CONTROL_PORT"),
        ({"VAULT_KEY": "short"}, "key of the vault is malformed"),
        ({"UPSTREAM_BASE_URL": "chatgpt.com"}, "SLUICEGATE_CONTROL_UPSTREAM_BASE_URL"),
        ({"ADMISSION_TLS_AUTHORITY": "/nowhere/ca.pem"}, "the TLS files of the admission server"),
    ],
)
async def test_a_start_that_cannot_work_says_why(tmp_path, simulator, changes, message):
    environment = control_environment(
        tmp_path, free_port(), simulator=simulator, admission_target="127.0.0.1:1", **changes
    )
    process = Process("control_api", environment, tmp_path / "log")
    try:
        await eventually(lambda: process.process.poll() is not None, what="the process has ended")
    finally:
        process.stop()

    log = (tmp_path / "log").read_text()
    assert process.process.returncode in {1, 2}
    assert message in log
    assert "Traceback" not in log


async def test_a_taken_port_is_named(tmp_path, simulator, admission_target):
    first = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target)
    await first.start()
    (tmp_path / "second").mkdir()
    environment = control_environment(
        tmp_path / "second", first.port, simulator=simulator, admission_target=admission_target
    )
    second = Process("control_api", environment, tmp_path / "second.log")
    try:
        await eventually(lambda: second.process.poll() is not None, what="the second process has ended")
    finally:
        second.stop()
        first.process.stop()

    assert second.process.returncode == 1
    assert f"127.0.0.1:{first.port}" in (tmp_path / "second.log").read_text()
