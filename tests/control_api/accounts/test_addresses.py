import asyncio
import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_api.accounts.addresses import AddressRefused, CheckedTransport, checked_base_url
from control_api.errors import InputRefused
from service_runtime.addresses import ALL_HOSTS, NO_PRIVATE_HOSTS, PrivateHosts
from tests.control_api.running import eventually


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com",
        "https://",
        "https://user@example.com",
        "https://user:pass@example.com",
        "https://example.com/v1?x=1",
        "https://example.com/v1#part",
        "https://example.com:0/v1",
        "https://example.com:99999/v1",
        "https://exa mple.com",
        "https://example.com\\@evil.example",
        "https://[::1",
        "http://example.com/v1",
        "https://127.0.0.1/v1",
        "https://10.1.2.3/v1",
        "https://169.254.169.254/latest",
        "https://[::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://0.0.0.0/v1",
    ],
)
def test_a_base_url_that_can_never_be_allowed_is_refused_with_its_field(url):
    with pytest.raises(InputRefused) as refused:
        checked_base_url(url, private_hosts=NO_PRIVATE_HOSTS)

    assert refused.value.field == "base_url"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://10.0.0.5/v1", "https://[::1]/v1"])
def test_private_addresses_and_plain_http_to_them_are_for_those_who_said_so(url):
    assert checked_base_url(url, private_hosts=ALL_HOSTS) == url
    with pytest.raises(InputRefused):
        checked_base_url(url, private_hosts=NO_PRIVATE_HOSTS)


def test_plain_http_to_a_public_address_is_never_allowed():
    with pytest.raises(InputRefused):
        checked_base_url("http://8.8.8.8/v1", private_hosts=ALL_HOSTS)


def test_a_trailing_slash_goes():
    assert checked_base_url("https://api.openai.com/v1/", private_hosts=NO_PRIVATE_HOSTS) == "https://api.openai.com/v1"


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_refused(url):
    with contextlib.suppress(InputRefused):
        checked_base_url(url, private_hosts=ALL_HOSTS)


class Recorder(httpx.AsyncBaseTransport):
    def __init__(self):
        self.seen = []

    async def handle_async_request(self, request):
        self.seen.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return httpx.Response(200)


def transport_to(recorder, *addresses, private_hosts=NO_PRIVATE_HOSTS):
    async def resolve(_host, _port):
        return list(addresses)

    return CheckedTransport(lambda: recorder, private_hosts=private_hosts, resolve=resolve)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to():
    recorder = Recorder()
    async with httpx.AsyncClient(transport=transport_to(recorder, "93.184.216.34")) as client:
        await client.get("https://api.example.com/v1")

    assert recorder.seen == [("93.184.216.34", "api.example.com", "api.example.com")]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1"])
async def test_a_name_that_resolves_to_a_private_address_is_refused_when_it_connects(address):
    recorder = Recorder()
    async with httpx.AsyncClient(transport=transport_to(recorder, address)) as client:
        with pytest.raises(AddressRefused):
            await client.get("https://rebound.example.com/v1")

    assert recorder.seen == []


async def test_an_address_that_is_allowed_among_others_is_taken():
    recorder = Recorder()
    async with httpx.AsyncClient(transport=transport_to(recorder, "127.0.0.1", "93.184.216.34")) as client:
        await client.get("https://api.example.com/v1")

    assert [seen[0] for seen in recorder.seen] == ["93.184.216.34"]


def test_a_private_host_may_be_allowed_by_name_alone():
    named = PrivateHosts.of("gpu.internal, 10.0.0.7")

    assert checked_base_url("http://gpu.internal/v1", private_hosts=named) == "http://gpu.internal/v1"
    assert checked_base_url("http://10.0.0.7/v1", private_hosts=named) == "http://10.0.0.7/v1"
    with pytest.raises(InputRefused):
        checked_base_url("http://10.0.0.8/v1", private_hosts=named)


async def test_a_connection_that_was_opened_for_one_name_never_carries_another_at_the_same_address():
    connections: list[list[str]] = []
    closed = []

    async def serve(reader, writer):
        hosts: list[str] = []
        connections.append(hosts)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                hosts.append(head.partition(b"ost: ")[2].partition(b":")[0].decode())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        closed.append(hosts)

    async def resolve(_host, _port):
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = CheckedTransport(httpx.AsyncHTTPTransport, private_hosts=ALL_HOSTS, resolve=resolve)
    async with server, httpx.AsyncClient(transport=transport, trust_env=False) as client:
        for name in ("a.test", "b.test", "a.test"):
            await client.get(f"http://{name}:{port}/")
    await eventually(lambda: len(closed) == len(connections))

    assert connections == [["a.test", "a.test"], ["b.test"]]
