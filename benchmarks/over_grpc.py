"""The real client and the real server over real gRPC: the stream, and the unary calls beside it."""

import hashlib
import time

import grpc.aio
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1.admission_service_pb2_grpc import AdmissionServiceStub

from admission_client.lease import AccountKind, AccountNeeds
from admission_client.policy import AccountPolicy, KeyPolicy, Policy, ResourceSettings
from admission_client.session import AdmissionClient
from benchmarks.load import Cycle

ACCOUNTS = 50
KEY_SHA256 = hashlib.sha256(b"bench").digest()
LANE = ("lanes/proxy_http",)
WORK = ("stages/response_create", "keys/-/streams", "accounts/-/streams", "accounts/-/response_creates")


def policy() -> Policy:
    """Returns a policy whose limits leave room for everything that is measured."""
    return Policy(
        resources=(
            ResourceSettings(name="lanes/proxy_http", limit=1_000_000),
            ResourceSettings(name="stages/response_create", limit=1_000_000, max_wait=2.0, max_hold=300.0),
            ResourceSettings(name="accounts/-/streams", limit=100_000, max_wait=10.0, reserve=1),
            ResourceSettings(name="accounts/-/response_creates", limit=100_000, max_wait=10.0, max_hold=300.0),
            ResourceSettings(name="keys/-/streams", limit=0),
        ),
        accounts=tuple(
            AccountPolicy(
                account_id=f"acc_{n}",
                kind=AccountKind.CHATGPT,
                base_url="http://127.0.0.1:9/backend-api",
                access_token="x" * 1_200,  # as long as the JWT of a ChatGPT account
                credential_version=1,
                weight=1.0 + n % 7,
            )
            for n in range(ACCOUNTS)
        ),
        keys=(KeyPolicy(key_id="key_1", key_sha256=KEY_SHA256),),
    )


def stream_cycle(client: AdmissionClient) -> Cycle:
    """Returns a cycle of one lane seat over the stream."""

    async def cycle(_caller: int, _n: int) -> float:
        began = time.perf_counter()
        async with client.acquire(LANE, peer="bench"):
            return time.perf_counter() - began

    return cycle


def stream_turn(client: AdmissionClient) -> Cycle:
    """Returns a turn in the edge's pattern: lane, then stage, key and account. Times the second acquire."""
    needs = AccountNeeds(model="gpt-5.5", kind=AccountKind.CHATGPT)

    async def turn(_caller: int, _n: int) -> float:
        async with client.acquire(LANE, key_sha256=KEY_SHA256):
            began = time.perf_counter()
            async with client.acquire(WORK, key_sha256=KEY_SHA256, account=needs) as work:
                waited = time.perf_counter() - began
                work.release("stages/response_create", "accounts/-/response_creates")
                return waited

    return turn


async def unary_cycle(channel: grpc.aio.Channel, token: str) -> Cycle:
    """Opens a session and returns a cycle of one lane seat by unary calls. The release is awaited: it is a call too."""
    stub = AdmissionServiceStub(channel)
    metadata = (("authorization", f"Bearer {token}"),)
    opened = await stub.OpenSession(session_pb.OpenSessionRequest(instance="bench-unary"), metadata=metadata)
    session_id = opened.session_id

    async def cycle(caller: int, n: int) -> float:
        acquire = pb.Acquire(request_id=f"{caller}.{n}", resources=LANE, peer="bench")
        began = time.perf_counter()
        response = await stub.Acquire(
            session_pb.AcquireRequest(session_id=session_id, acquire=acquire), metadata=metadata, timeout=10
        )
        waited = time.perf_counter() - began
        release = pb.Release(lease_ids=response.answer.grant.lease_ids)
        await stub.Release(
            session_pb.ReleaseRequest(session_id=session_id, releases=[release]), metadata=metadata, timeout=10
        )
        return waited

    return cycle
