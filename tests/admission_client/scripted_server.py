"""A stand-in for the admission server's stream that does what a test tells it: for what the real one never does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1.admission_service_pb2_grpc import AdmissionServiceServicer, add_AdmissionServiceServicer_to_server

Metadata = tuple[tuple[str, bytes], ...]


def grants_all(server: "ScriptedServer", acquire: pb.Acquire) -> pb.Answer | None:
    """Answers every acquire with leases of its own."""
    server.leases_made += len(acquire.resources)
    last = (server.epoch << 40) + server.leases_made
    ids = range(last - len(acquire.resources) + 1, last + 1)
    return pb.Answer(request_id=acquire.request_id, grant=pb.Grant(lease_ids=ids))


def stays_silent(_server: "ScriptedServer", _acquire: pb.Acquire) -> pb.Answer | None:
    """Answers no acquire."""
    return None


@dataclass
class ScriptedServer(AdmissionServiceServicer):
    """Welcomes everybody, acknowledges heartbeats, answers acquires by `answer`, and remembers what it heard."""

    answer: Callable[["ScriptedServer", pb.Acquire], pb.Answer | None] = grants_all
    ttl: float = 15.0
    heartbeat_in: float = 5.0
    acknowledges: bool = True
    has_policy: bool = True
    epoch: int = 1
    leases_made: int = 0
    numbered: int = 0
    heard: list[session_pb.SessionRequest] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    streams: int = 0
    out: "asyncio.Queue[session_pb.SessionResponse | Refusal | None]" = field(default_factory=asyncio.Queue)

    async def Session(self, requests, context):  # noqa: N802 (gRPC's name)
        self.streams += 1
        self.out = asyncio.Queue()
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization", ""))
        reader = asyncio.create_task(self._read(requests, self.out))
        try:
            while True:
                response = await self.out.get()
                if isinstance(response, Refusal):
                    await context.abort(response.code, response.message, trailing_metadata=response.metadata)
                    return
                if response is None:
                    return
                self.numbered += 1
                response.number = self.numbered
                yield response
        finally:
            reader.cancel()

    async def _read(self, requests, out):
        async for request in requests:
            self.heard.append(request)
            response = session_pb.SessionResponse()
            if request.HasField("hello"):
                response.welcome.epoch = self.epoch
                response.welcome.ttl.FromNanoseconds(int(self.ttl * 1e9))
                response.welcome.heartbeat_in.FromNanoseconds(int(self.heartbeat_in * 1e9))
                response.welcome.has_policy = self.has_policy
            if request.HasField("heartbeat") and self.acknowledges:
                response.heartbeat_ack.sequence = request.heartbeat.sequence
                response.heartbeat_ack.heartbeat_in.FromNanoseconds(int(self.heartbeat_in * 1e9))
                response.heartbeat_ack.has_policy = self.has_policy
            for acquire in request.acquires:
                answer = self.answer(self, acquire)
                if answer is not None:
                    response.answers.append(answer)
            if response.ByteSize():
                out.put_nowait(response)
            if request.close:
                out.put_nowait(None)

    @property
    def released(self) -> list[int]:
        return [lease_id for request in self.heard for release in request.releases for lease_id in release.lease_ids]

    @property
    def withdrawn(self) -> list[str]:
        return [r.request_id for request in self.heard for r in request.releases if r.request_id]

    @property
    def asked(self) -> list[str]:
        return [acquire.request_id for request in self.heard for acquire in request.acquires]

    def say(self, response: session_pb.SessionResponse) -> None:
        self.out.put_nowait(response)

    def refuse(self, code: grpc.StatusCode, message: str, metadata: Metadata = ()) -> None:
        self.out.put_nowait(Refusal(code, message, metadata))


@dataclass
class Refusal:
    """Ends the stream with a status."""

    code: grpc.StatusCode
    message: str
    metadata: Metadata


@asynccontextmanager
async def serving(servicer: ScriptedServer, port: int = 0) -> AsyncIterator[str]:
    """Serves it on a loopback port while the block runs."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_AdmissionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def eventually(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
