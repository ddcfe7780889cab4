"""The upstream's certificate must prove the name in the URL, on every road: aiohttp, `websockets`, and httpx.

A door that speaks TLS stands before the simulator, and shows whichever certificate the test wants. What was refused has
sent nothing: no byte of a request, and so no token, has come through the door.
"""

import asyncio
import json
import ssl

import pytest
import pytest_asyncio
import websockets.asyncio.client
from cryptography import x509

from demo.ports import Ports
from demo.services import SystemOptions
from tests.system.certificates import Authority
from tests.system.running import TURN, RunningSystem, eventually

PATH = "/backend-api/codex/responses"
ONLY_THE_NAME = (x509.DNSName("localhost"),)
ANOTHER_NAME = (x509.DNSName("upstream.example"),)
ITS_ADDRESS: tuple[x509.GeneralName, ...] = (x509.DNSName("127.0.0.1"),)


class Door:
    """Ends TLS and passes everything on to the simulator. Counts what came through, and which names were asked for."""

    system: RunningSystem

    def __init__(self, upstream_port):
        self._upstream_port = upstream_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.sni_callback = self._choose
        self._shown = self._context
        self._connections = set()
        self._server: asyncio.Server | None = None
        self.names = set()
        self.bytes_in = 0
        self.refusals = 0

    async def open(self):
        # The certificate for the handshake comes from `_choose`; a server needs one of its own all the same.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def show(self, files):
        """Shows another certificate from now on; nobody may go on with a connection that has seen the last one."""
        self._shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._shown.load_cert_chain(files.certificate, files.key)
        self.names.clear()
        self.bytes_in = self.refusals = 0
        for connection in self._connections:
            connection.cancel()

    async def close(self):
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _choose(self, connection, name, _context):
        self.names.add(name)
        connection.context = self._shown

    async def _serve(self, reader, writer):
        self._connections.add(asyncio.current_task())
        outward = None
        try:
            await writer.start_tls(self._context)
            inward, outward = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, outward, count=True))
                both.create_task(self._pump(inward, writer, count=False))
        except (OSError, ssl.SSLError):
            self.refusals += 1
        except (asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            self._connections.discard(asyncio.current_task())
            for end in (writer, outward):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, source, sink, *, count):
        while data := await source.read(65_536):
            self.bytes_in += len(data) if count else 0
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"), "believed")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(authority, tmp_path_factory):
    """The door, with a whole system behind it that believes this authority and knows its upstream by name."""
    ports = Ports.free()
    door = Door(ports.simulator)
    port = await door.open()
    door.show(authority.issue("right", names=ONLY_THE_NAME))
    environment = {
        "SSL_CERT_FILE": str(authority.file),
        "SLUICEGATE_CONTROL_UPSTREAM_BASE_URL": f"https://localhost:{port}/backend-api",
        "SLUICEGATE_EDGE_RETRY_BUDGET": "1000",
    }
    options = SystemOptions(directory=tmp_path_factory.mktemp("system"), ports=ports, environment=environment)
    async with RunningSystem(options) as system:
        door.system = system
        yield door
    await door.close()


@pytest_asyncio.fixture(loop_scope="session")
async def rested(door):
    """The account serves: what earlier refusals have cost it is forgotten."""
    path = f"/api/accounts/{door.system.account_id}"
    await door.system.operator.control("POST", f"{path}/pause")
    await door.system.operator.control("POST", f"{path}/resume")
    return door


async def over_http(system):
    answer = await system.turn()
    return answer.status_code == 200 and "response.completed" in answer.text


async def on_a_socket(system):
    uri = f"ws://127.0.0.1:{system.ports.edge}{PATH}"
    async with websockets.asyncio.client.connect(uri, additional_headers=system.headers, proxy=None) as socket:
        await socket.send(json.dumps({**TURN, "type": "response.create"}))
        async for message in socket:
            kind = json.loads(message)["type"]
            if kind in {"response.completed", "response.failed", "error"}:
                return kind == "response.completed"
    return False


async def usage_query(system):
    told = await system.operator.control("POST", f"/api/usage/{system.account_id}/refresh")
    return told["outcome"] == "stored"


ROADS = [over_http, on_a_socket, usage_query]


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_a_certificate_that_proves_the_name_is_believed(rested, authority, road):
    rested.show(authority.issue("right", names=ONLY_THE_NAME))

    async def is_served():
        return await road(rested.system)

    await eventually(is_served, what="the certificate for the name in the URL is believed")
    assert rested.bytes_in > 0
    assert rested.names == {"localhost"}, "the name was asked for, and not the address that was connected to"


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
@pytest.mark.parametrize("fault", ["another name", "the address as a name", "expired", "unknown authority"])
async def test_a_certificate_that_does_not_prove_the_name_gets_no_request(rested, authority, tmp_path, road, fault):
    match fault:
        case "another name":
            files = authority.issue("other", names=ANOTHER_NAME)
        case "the address as a name":
            files = authority.issue("address", names=ITS_ADDRESS)
        case "expired":
            files = authority.issue("expired", names=ONLY_THE_NAME, expired=True)
        case _:
            files = Authority(tmp_path, "stranger").issue("right", names=ONLY_THE_NAME)
    rested.show(files)
    served = await road(rested.system)

    assert not served
    assert rested.names == {"localhost"}
    assert rested.bytes_in == 0
