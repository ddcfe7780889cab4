"""The health probe asks the server as its own settings say: in plain text, over TLS, over mutual TLS, with a token."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from cryptography import x509

from admission_server.probe import check_server
from service_runtime.probe import Unhealthy
from tests.admission_server.running import running_server, settings_in
from tests.system.certificates import HERE, Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def tls_settings(files):
    return {"tls_certificate": files.certificate, "tls_key": files.key, "tls_authority": files.authority}


async def probe(folder, running, **settings):
    """Probes a running server with these settings; raises `Unhealthy`."""
    asked = settings_in(folder, port=running.server.port, **settings)
    await asyncio.to_thread(check_server, asked)


NAMES = {
    "of another host": (x509.DNSName("admission.example"),),
    "of this host": HERE,
    "of many hosts": (x509.DNSName("*.example"), x509.DNSName("admission.example")),
    "in the subject alone": (),
}


async def test_a_server_in_plain_text_is_healthy(tmp_path):
    async with running_server(tmp_path) as running:
        await probe(tmp_path, running)


@pytest.mark.parametrize("names", NAMES)
async def test_a_server_with_tls_is_healthy_whatever_name_its_certificate_is_for(tmp_path, authority, names):
    server = replace(authority.issue("server.example", names=NAMES[names]), authority=None)
    async with running_server(tmp_path, **tls_settings(server)) as running:
        await probe(tmp_path, running, **tls_settings(server))


async def test_under_mutual_tls_the_servers_own_certificate_is_shown(tmp_path, authority):
    settings = tls_settings(authority.issue("server", names=NAMES["of another host"]))
    async with running_server(tmp_path, **settings) as running:
        await probe(tmp_path, running, **settings)


async def test_a_certificate_for_servers_only_needs_another_one_beside_it_for_the_probe(tmp_path, authority):
    settings = tls_settings(authority.issue("server", for_servers_only=True))
    client = authority.issue("probe")
    async with running_server(tmp_path, **settings) as running:
        with pytest.raises(Unhealthy, match="does not answer: UNAVAILABLE"):
            await probe(tmp_path, running, **settings)
        await probe(tmp_path, running, **settings, tls_probe_certificate=client.certificate, tls_probe_key=client.key)


async def test_a_server_of_one_authority_and_clients_of_another_are_no_obstacle(tmp_path, authority):
    clients = Authority(tmp_path, "clients")
    client = clients.issue("probe")
    server = replace(authority.issue("server"), authority=clients.file)
    settings = tls_settings(server) | {"tls_probe_certificate": client.certificate, "tls_probe_key": client.key}
    async with running_server(tmp_path, **settings) as running:
        await probe(tmp_path, running, **settings)


async def test_a_server_whose_certificate_has_expired_is_not_healthy(tmp_path, authority):
    settings = tls_settings(replace(authority.issue("server", expired=True), authority=None))
    async with running_server(tmp_path, **settings) as running:
        with pytest.raises(Unhealthy, match="expired"):
            await probe(tmp_path, running, **settings)


async def test_a_server_that_shows_another_certificate_than_its_settings_name_is_not_healthy(tmp_path, authority):
    old = replace(authority.issue("old"), authority=None)
    new = replace(authority.issue("new"), authority=None)
    async with running_server(tmp_path, **tls_settings(old)) as running:
        with pytest.raises(Unhealthy, match="cannot be asked"):
            await probe(tmp_path, running, **tls_settings(new))


async def test_a_server_without_the_tls_that_its_settings_name_is_not_healthy(tmp_path, authority):
    settings = tls_settings(replace(authority.issue("server"), authority=None))
    async with running_server(tmp_path) as running:
        with pytest.raises(Unhealthy):
            await probe(tmp_path, running, **settings)


async def test_a_server_that_tells_nobody_its_state_tells_the_probe(tmp_path):
    async with running_server(tmp_path, open_state=False) as running:
        await probe(tmp_path, running, open_state=False)
        with pytest.raises(Unhealthy, match="UNAUTHENTICATED"):
            await probe(tmp_path, running, open_state=True)


async def test_a_server_for_all_addresses_is_asked_on_loopback(tmp_path):
    async with running_server(tmp_path, host="0.0.0.0") as running:
        await probe(tmp_path, running, host="0.0.0.0")


async def test_nobody_is_not_healthy(tmp_path):
    async with running_server(tmp_path) as running:
        gone = running
    with pytest.raises(Unhealthy, match="does not answer"):
        await probe(tmp_path, gone)


def run_probe(settings, **variables):
    known = {"PORT": settings.port, "TOKENS_FILE": settings.tokens_file, **variables}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "admission_server.probe"],
        env=environment | {f"SLUICEGATE_ADMISSION_{name}": str(value) for name, value in known.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_as_a_command_it_takes_the_environment_and_tells_what_is_wrong(tmp_path, authority):
    files = tls_settings(authority.issue("server"))
    variables = {name.upper(): path for name, path in files.items()}
    async with running_server(tmp_path, **files) as running:
        asked = settings_in(tmp_path, port=running.server.port)
        right = await asyncio.to_thread(run_probe, asked, **variables)
        wrong = await asyncio.to_thread(run_probe, asked)
        contradictory = await asyncio.to_thread(run_probe, asked, TLS_KEY="/nowhere")

    assert (right.returncode, right.stderr) == (0, "")
    assert wrong.returncode == 1
    assert "does not answer: UNAVAILABLE" in wrong.stderr
    assert contradictory.returncode == 1
    assert "SLUICEGATE_ADMISSION_TLS_CERTIFICATE" in contradictory.stderr
