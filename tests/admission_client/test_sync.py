"""The controller's stream, over a real socket, against a servicer that applies what it is sent."""

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
import pytest
from admission.v1 import admission_pb2
from admission.v1 import control_service_pb2 as pb
from admission.v1.control_service_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server

from admission_client.errors import AdmissionUnavailable, PolicyRefused, TermRefused, UnknownSession
from admission_client.lease import AccountKind, Outcome
from admission_client.policy import AccountPolicy, KeyPolicy, Policy, ResourceSettings
from admission_client.sync import SyncClient, SyncStatus
from tests.admission_client.scripted_server import eventually


@dataclass
class ScriptedControl(ControlServiceServicer):
    """Applies every policy unless told otherwise, and remembers what it heard."""

    epoch: int = 1
    newest_term: int = 0
    version: int = 0
    refuse_field: str = ""
    forget_base: bool = False
    heard: list[pb.SyncRequest] = field(default_factory=list)
    out: "asyncio.Queue[pb.SyncResponse]" = field(default_factory=asyncio.Queue)

    async def Sync(self, requests, context):  # noqa: N802 (gRPC's name)
        self.out = asyncio.Queue()
        hello = (await context.read()).hello
        if hello.term < self.newest_term:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a newer term was seen")
        self.out.put_nowait(pb.SyncResponse(welcome=pb.SyncWelcome(epoch=self.epoch, policy_version=self.version)))
        reader = asyncio.create_task(self._read(context, self.out))
        try:
            while True:
                await context.write(await self.out.get())
        finally:
            reader.cancel()

    async def _read(self, context, out):
        while isinstance(request := await context.read(), pb.SyncRequest):
            self.heard.append(request)
            change = request.snapshot if request.HasField("snapshot") else request.delta
            if request.HasField("signal_ack"):
                continue
            if self.forget_base and request.HasField("delta"):
                self.forget_base = False
                out.put_nowait(pb.SyncResponse(rejected=pb.PolicyRejected(version=change.version, message="base")))
            elif self.refuse_field:
                rejected = pb.PolicyRejected(version=change.version, field=self.refuse_field, message="wrong")
                out.put_nowait(pb.SyncResponse(rejected=rejected))
            else:
                self.version = change.version
                out.put_nowait(pb.SyncResponse(applied=pb.PolicyApplied(version=change.version)))

    async def ForgetSession(self, request, context):  # noqa: N802 (gRPC's name)
        if request.session_id == "unknown_1":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such session")
        return pb.ForgetSessionResponse(ended=3)


class Serving:
    """A `ScriptedControl` on a loopback port."""

    def __init__(self, servicer, port=0):
        self.servicer = servicer
        self.port = port

    async def __aenter__(self):
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_ControlServiceServicer_to_server(self.servicer, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()
        return f"127.0.0.1:{self.port}"

    async def __aexit__(self, *error):
        await self.server.stop(None)


ACCOUNT = AccountPolicy(
    account_id="acc_1", kind=AccountKind.CHATGPT, base_url="http://u", access_token="t", credential_version=1
)
KEY = KeyPolicy(key_id="key_1", key_sha256=b"k" * 32)
POLICY = Policy(resources=(ResourceSettings(name="lanes/proxy_http", limit=2),), accounts=(ACCOUNT,), keys=(KEY,))


async def ignore_signals(_signals):
    pass


def syncing(target, *, on_signals=ignore_signals, term=10):
    return SyncClient(target, "t", "control-1", term, on_signals=on_signals)


async def test_the_first_policy_is_a_snapshot_and_the_next_a_delta():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        first = await sync.update(POLICY)
        second = await sync.update(replace(POLICY, accounts=(replace(ACCOUNT, weight=2.0),), keys=()))

        assert second > first
        assert sync.applied_version == second
        assert [request.WhichOneof("body") for request in control.heard] == ["snapshot", "delta"]
        delta = control.heard[1].delta
        assert delta.base_version == first
        assert not delta.HasField("settings")
        assert [account.weight for account in delta.accounts] == [2.0]
        assert list(delta.removed_key_ids) == ["key_1"]


async def test_the_same_policy_again_is_not_sent():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        first = await sync.update(POLICY)
        again = await sync.update(POLICY)

        assert again == first
        assert len(control.heard) == 1


async def test_a_restarted_server_gets_the_latest_policy_as_a_snapshot():
    first, second = ScriptedControl(), ScriptedControl(epoch=2)
    serving = Serving(first)
    async with serving as target:
        sync = syncing(target)
        await sync.__aenter__()
        await sync.update(POLICY)
    latest = replace(POLICY, keys=())
    with pytest.raises(AdmissionUnavailable):
        await sync.update(latest, timeout=0.05)
    async with Serving(second, serving.port):
        await eventually(lambda: sync.connected and sync.applied_version)
        await sync.__aexit__(None, None, None)

    assert sync.epoch == 2
    assert len(second.heard) == 1
    assert list(second.heard[0].snapshot.keys) == []


async def test_a_refused_policy_leaves_the_one_before_wanted():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        first = await sync.update(POLICY)
        control.refuse_field = "settings.resources[0].limit"
        with pytest.raises(PolicyRefused) as refused:
            await sync.update(replace(POLICY, resources=(ResourceSettings(name="lanes/proxy_http", limit=-0),)))
        control.refuse_field = ""
        again = await sync.update(POLICY)

        assert refused.value.field == "settings.resources[0].limit"
        assert again == first
        assert len(control.heard) == 2


async def test_a_server_with_another_base_gets_a_snapshot():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        await sync.update(POLICY)
        control.forget_base = True
        await sync.update(replace(POLICY, keys=()))

        assert [request.WhichOneof("body") for request in control.heard] == ["snapshot", "delta", "snapshot"]


async def test_a_burst_of_updates_is_sent_as_one_change():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        await sync.update(POLICY)
        changes = [replace(POLICY, accounts=(replace(ACCOUNT, weight=float(n)),)) for n in range(2, 30)]
        versions = await asyncio.gather(*(sync.update(policy) for policy in changes))

        assert len(control.heard) <= 3
        assert sync.applied_version == max(versions)


A_WORD: Any = "long"


@pytest.mark.parametrize(
    "resource",
    [
        ResourceSettings(name="lanes/proxy_http", limit=-1),
        ResourceSettings(name="lanes/\ud800", limit=1),
        ResourceSettings(name="lanes/proxy_http", limit=1, max_wait=A_WORD),
    ],
)
async def test_a_policy_that_cannot_be_said_is_refused_and_the_next_one_is_applied(resource):
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        with pytest.raises(PolicyRefused):
            await sync.update(replace(POLICY, resources=(resource,)))
        version = await sync.update(POLICY)

        assert version > 0
        assert len(control.heard) == 1


async def test_lengths_of_time_in_a_policy_saturate():
    control = ScriptedControl()
    async with Serving(control) as target, syncing(target) as sync:
        lane = ResourceSettings(name="lanes/proxy_http", limit=1, max_wait=math.inf, max_hold=math.nan)
        await sync.update(replace(POLICY, resources=(lane,)))

        (said,) = control.heard[-1].snapshot.settings.resources
        assert said.max_wait.seconds == said.max_hold.seconds == 366 * 86_400


async def test_an_older_term_is_told_so_and_stays_away():
    control = ScriptedControl(newest_term=11)
    async with Serving(control) as target, syncing(target, term=10) as sync:
        with pytest.raises(TermRefused):
            await sync.update(POLICY)

        assert sync.status is SyncStatus.TERM_REFUSED


async def test_signals_are_acknowledged_once_they_are_handled():
    control = ScriptedControl()
    handled = []

    async def handle(signals):
        handled.extend(signals)

    async with Serving(control) as target, syncing(target, on_signals=handle) as sync:
        await sync.update(POLICY)
        event = pb.StatusEvent(outcome=admission_pb2.OUTCOME_AUTH_REJECTED, refresh_wanted=True)
        control.out.put_nowait(
            pb.SyncResponse(signals=[pb.AccountSignal(sequence=7, account_id="acc_1", status_event=event)])
        )
        await eventually(lambda: any(request.HasField("signal_ack") for request in control.heard))

        assert list(control.heard[-1].signal_ack.sequences) == [7]
        assert handled[0].status_event.outcome is Outcome.AUTH_REJECTED
        assert handled[0].status_event.refresh_wanted
        assert handled[0].epoch == 1


async def test_signals_that_could_not_be_handled_come_again():
    control = ScriptedControl()
    tries = []

    async def handle(signals):
        tries.append(signals)
        if len(tries) == 1:
            raise RuntimeError("database is locked")

    async with Serving(control) as target, syncing(target, on_signals=handle) as sync:
        await sync.update(POLICY)
        control.out.put_nowait(pb.SyncResponse(signals=[pb.AccountSignal(sequence=7, account_id="acc_1")]))
        await eventually(lambda: any(request.HasField("signal_ack") for request in control.heard))

        assert len(tries) == 2


async def test_a_session_can_be_forgotten_by_hand():
    async with Serving(ScriptedControl()) as target, syncing(target) as sync:
        ended = await sync.forget_session("s_1")
        with pytest.raises(UnknownSession):
            await sync.forget_session("unknown_1")

        assert ended == 3
