"""A real server on a real socket in this process, and holders that speak the bare contract to it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import admission_service_pb2_grpc as session_grpc
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import control_service_pb2_grpc as control_grpc
from admission.v1 import state_service_pb2_grpc as state_grpc

from admission_server.server import AdmissionServer
from admission_server.sessions import splitmix64
from admission_server.settings import AdmissionSettings

WITHIN = 10.0
TOKENS = {role: f"{role}-token-for-tests" for role in ("edge", "worker", "control", "reader")}


def metadata(role: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a call of a role."""
    return (("authorization", f"Bearer {TOKENS[role]}"),)


async def eventually(condition: Callable[[], bool], *, within: float = WITHIN) -> None:
    """Waits until a condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


def limit(name: str, seats: int, *, max_wait: float = 0.0, **others: Any) -> control_pb.ResourceSettings:
    """Returns settings of a resource."""
    message = control_pb.ResourceSettings(name=name, limit=seats, **others)
    message.max_wait.FromMilliseconds(round(max_wait * 1000))
    return message


def account(account_id: str, **others: Any) -> control_pb.AccountPolicy:
    """Returns an account that serves."""
    fields: dict[str, Any] = {
        "kind": pb.ACCOUNT_KIND_CHATGPT,
        "status": control_pb.ACCOUNT_STATUS_ACTIVE,
        "base_url": "https://upstream.example",
        "access_token": f"secret-of-{account_id}",
        "credential_version": 1,
        "weight": 1.0,
    }
    return control_pb.AccountPolicy(account_id=account_id, **(fields | others))


LIMITS = (
    limit("lanes/proxy_http", 2),
    limit("lanes/dashboard", 2),
    limit("stages/response_create", 2, max_wait=2.0),
    limit("accounts/-/streams", 2, max_wait=2.0),
    limit("accounts/-/response_creates", 2, max_wait=2.0),
)


class Running:
    """A server that runs."""

    def __init__(self, server: AdmissionServer) -> None:
        self.server = server
        self.target = f"127.0.0.1:{server.port}"
        self.channel = grpc.aio.insecure_channel(self.target)
        self.unary = session_grpc.AdmissionServiceStub(self.channel)
        self.state = state_grpc.StateServiceStub(self.channel)
        self.control = control_grpc.ControlServiceStub(self.channel)

    def held(self, resource: str) -> int:
        """Returns how many seats of a resource are taken."""
        return len(self.server.ledger.catalogue.resources[resource].leases)

    @contextlib.asynccontextmanager
    async def holder(self, instance: str = "edge-1/0", *, role: str = "edge", **hello: Any) -> AsyncIterator["Holder"]:
        """A holder on a stream of its own, welcomed."""
        holder = Holder(self, role)
        try:
            await holder.hello(instance, **hello)
            yield holder
        finally:
            holder.call.cancel()

    @contextlib.asynccontextmanager
    async def controller(self, *, term: int = 1) -> AsyncIterator["Controller"]:
        """A controller, welcomed."""
        controller = Controller(self, term)
        try:
            await controller.hello()
            yield controller
        finally:
            controller.call.cancel()

    async def policy(self, *, term: int = 1, version: int = 1, limits: Any = LIMITS, **others: Any) -> None:
        """Puts a policy in force."""
        async with self.controller(term=term) as controller:
            answer = await controller.snapshot(version, limits=limits, **others)
            assert answer.HasField("applied"), answer


class Holder:
    """One end of a `Session` stream, by hand."""

    def __init__(self, running: Running, role: str) -> None:
        self.call = running.unary.Session(metadata=metadata(role))
        self.session_id = f"session_{secrets.token_hex(6)}"
        self.welcome = session_pb.Welcome()
        self.first = session_pb.SessionResponse()
        self.seen = 0
        self.beats = 0
        self.leases: set[int] = set()

    async def hello(
        self, instance: str, *, session_id: str = "", held: session_pb.LeaseList | None = None, epoch: int = 0
    ) -> None:
        """Says hello and hears the welcome."""
        self.session_id = session_id or self.session_id
        hello = session_pb.Hello(instance=instance, session_id=self.session_id, epoch=epoch, held=held)
        await self.call.write(session_pb.SessionRequest(hello=hello))
        self.first = await self.hear()
        self.welcome = self.first.welcome

    async def say(self, **fields: Any) -> None:
        """Sends one message."""
        await self.call.write(session_pb.SessionRequest(**fields))

    async def hear(self) -> session_pb.SessionResponse:
        """Returns the next message."""
        async with asyncio.timeout(WITHIN):
            message = await self.call.read()
        assert isinstance(message, session_pb.SessionResponse), "the server ended the stream"
        assert message.number == self.seen + 1 or self.seen == 0
        self.seen = message.number
        for answer in message.answers:
            self.leases.update(answer.grant.lease_ids)
        return message

    async def acquire(self, *resources: str, request_id: str = "", **fields: Any) -> pb.Answer:
        """Asks for seats and returns the answer."""
        acquire = acquire_of(*resources, request_id=request_id, **fields)
        await self.say(acquires=[acquire])
        return await self.answer()

    async def answer(self) -> pb.Answer:
        """Returns the next answer."""
        while True:
            message = await self.hear()
            if message.answers:
                assert len(message.answers) == 1
                return message.answers[0]

    async def release(self, *lease_ids: int) -> None:
        """Gives seats back."""
        self.leases.difference_update(lease_ids)
        await self.say(releases=[pb.Release(lease_ids=lease_ids)])

    async def beat(self, **fields: Any) -> session_pb.SessionResponse:
        """Sends a heartbeat and returns the message that acknowledges it."""
        self.beats += 1
        digest = sum(splitmix64(i) for i in self.leases) % 2**64
        heartbeat = session_pb.Heartbeat(
            sequence=self.beats,
            seen=self.seen,
            lease_count=len(self.leases),
            lease_digest=digest,
            **fields,
        )
        await self.say(heartbeat=heartbeat)
        while True:
            message = await self.hear()
            if message.HasField("heartbeat_ack"):
                return message

    async def over(self) -> grpc.aio.AioRpcError:
        """Waits for the server to end the stream with an error, and returns it."""
        try:
            async with asyncio.timeout(WITHIN):
                while isinstance(await self.call.read(), session_pb.SessionResponse):
                    pass
                await self.call
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended in order")


class Controller:
    """One end of a `Sync` stream, by hand."""

    def __init__(self, running: Running, term: int) -> None:
        self.call = running.control.Sync(metadata=metadata("control"))
        self.term = term
        self.welcome = control_pb.SyncWelcome()

    async def hello(self) -> None:
        """Says hello and hears the welcome."""
        hello = control_pb.ControllerHello(instance="control-1", term=self.term)
        await self.call.write(control_pb.SyncRequest(hello=hello))
        self.welcome = (await self.hear()).welcome

    async def hear(self) -> control_pb.SyncResponse:
        """Returns the next message."""
        async with asyncio.timeout(WITHIN):
            message = await self.call.read()
        assert isinstance(message, control_pb.SyncResponse), "the server ended the stream"
        return message

    async def snapshot(
        self, version: int, *, limits: Any = LIMITS, accounts: Any = (), keys: Any = (), **settings: Any
    ) -> control_pb.SyncResponse:
        """Sends a snapshot and returns the answer."""
        snapshot = control_pb.PolicySnapshot(
            version=version,
            settings=control_pb.PolicySettings(resources=limits, **settings),
            accounts=accounts,
            keys=keys,
        )
        await self.call.write(control_pb.SyncRequest(snapshot=snapshot))
        return await self.answer()

    async def delta(self, version: int, base_version: int, **fields: Any) -> control_pb.SyncResponse:
        """Sends a delta and returns the answer."""
        delta = control_pb.PolicyDelta(version=version, base_version=base_version, **fields)
        await self.call.write(control_pb.SyncRequest(delta=delta))
        return await self.answer()

    async def answer(self) -> control_pb.SyncResponse:
        """Returns the next answer to a policy."""
        while True:
            message = await self.hear()
            if message.HasField("applied") or message.HasField("rejected"):
                return message

    async def signals(self) -> list[control_pb.AccountSignal]:
        """Returns the next signals."""
        while True:
            message = await self.hear()
            if message.signals:
                return list(message.signals)


def acquire_of(*resources: str, request_id: str = "", **fields: Any) -> pb.Acquire:
    """Returns an acquire of a keyless client, unless it says otherwise."""
    if "key_sha256" not in fields:
        fields.setdefault("peer", "127.0.0.1")
    request_id = request_id or secrets.token_hex(4)
    return pb.Acquire(request_id=request_id, resources=resources, **fields)


def settings_in(folder: Path, **others: Any) -> AdmissionSettings:
    """Returns settings for a server whose files are in a folder."""
    tokens = folder / "tokens"
    tokens.write_text("\n".join(f"{role} {token}" for role, token in TOKENS.items()), encoding="utf-8")
    values: dict[str, Any] = {
        "port": 0,
        "metrics_port": 0,
        "state_dir": folder / "state",
        "tokens_file": tokens,
        "session_ttl": 1.0,
        "heartbeat": 0.4,
        "grace": 0.2,
    }
    return AdmissionSettings(**(values | others))


@contextlib.asynccontextmanager
async def running_server(folder: Path, **others: Any) -> AsyncIterator[Running]:
    """A server that runs while the block lasts."""
    server = AdmissionServer(settings_in(folder, **others))
    await server.start()
    running = Running(server)
    try:
        yield running
    finally:
        await running.channel.close(None)
        await server.stop()
