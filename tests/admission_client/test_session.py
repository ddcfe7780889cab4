"""The client's shell, over a real socket, against a server that does what the test says."""

import asyncio
import contextlib
import gc

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it comes without types
from structlog.testing import capture_logs

from admission_client.errors import AcquireRejected, AdmissionUnavailable, Denied, SessionSuperseded
from admission_client.holder import Claim
from admission_client.lease import AccountReport, DenialReason, Outcome
from admission_client.session import SUPERSEDED, AdmissionClient
from tests.admission_client.scripted_server import ScriptedServer, eventually, serving, stays_silent


async def test_a_block_holds_its_lease_and_gives_it_back():
    server = ScriptedServer()
    async with serving(server) as target, AdmissionClient(target, "secret", "edge-1") as client:
        async with client.acquire(["lanes/proxy_http"], peer="127.0.0.1", label="req_1") as lane:
            held = lane.resources
            live = lane.live
        await eventually(lambda: server.released)

        assert held == ("lanes/proxy_http",)
        assert live
        assert lane.resources == ()
        assert not lane.live
        assert server.asked == ["req_1.01"]
        assert server.authorizations == ["Bearer secret"]


async def test_leaving_the_client_closes_the_session_in_order():
    server = ScriptedServer()
    async with serving(server) as target:
        async with AdmissionClient(target, "t", "edge-1") as client:
            await client.wait_until_ready(5)

        assert server.heard[-1].close


async def test_an_exception_in_the_block_gives_the_lease_back():
    server = ScriptedServer()
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        with pytest.raises(ZeroDivisionError):
            async with client.acquire(["lanes/proxy_http"]):
                raise ZeroDivisionError
        await eventually(lambda: server.released)

        assert client.lease_count == 0


async def test_many_callers_share_few_messages():
    server = ScriptedServer()

    async def cycle():
        async with client.acquire(["lanes/proxy_http"]):
            pass

    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        await client.wait_until_ready(5)
        await asyncio.gather(*(cycle() for _ in range(200)))

        assert len(server.asked) == 200
        assert len(server.heard) < 20


async def test_a_cancelled_caller_withdraws_its_acquire():
    server = ScriptedServer(answer=stays_silent)
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        caller = asyncio.create_task(client.acquire(["lanes/proxy_http"]).__aenter__())
        await eventually(lambda: server.asked)
        caller.cancel()
        await asyncio.wait([caller])
        await eventually(lambda: server.withdrawn)

        assert caller.cancelled()
        assert server.withdrawn == server.asked
        assert client.pending_count == 0


async def test_a_grant_that_comes_after_its_caller_has_gone_is_released():
    server = ScriptedServer(answer=stays_silent)
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        caller = asyncio.create_task(client.acquire(["lanes/proxy_http"]).__aenter__())
        await eventually(lambda: server.asked)
        caller.cancel()
        server.say(
            session_pb.SessionResponse(answers=[pb.Answer(request_id=server.asked[0], grant=pb.Grant(lease_ids=[7]))])
        )
        await eventually(lambda: 7 in server.released or server.withdrawn)
        await asyncio.wait([caller])

        assert client.lease_count == 0


async def test_a_dropped_lease_is_released_with_a_warning():
    server = ScriptedServer()
    async with (
        serving(server) as target,
        AdmissionClient(target, "t", "edge-1") as client,
    ):
        grant = await client.acquire(["lanes/proxy_http"], label="lost").__aenter__()
        assert grant.live
        with capture_logs() as logs:
            del grant
            gc.collect()
            await eventually(lambda: server.released)

        warning = next(line for line in logs if "without a release" in line["event"])
        assert warning["resources"] == ("lanes/proxy_http",)
        assert warning["request_id"] == "lost.01"


async def test_without_a_server_callers_are_told_in_time():
    async with AdmissionClient("127.0.0.1:1", "t", "edge-1", unavailable_wait=0.2) as client:
        with pytest.raises(AdmissionUnavailable):
            async with client.acquire(["lanes/proxy_http"]):
                pass

        assert not client.ready


async def test_only_so_many_wait_for_a_server_that_is_away():
    async with AdmissionClient("127.0.0.1:1", "t", "edge-1", max_unavailable_waiters=2) as client:
        callers = [asyncio.create_task(client.acquire(["lanes/proxy_http"]).__aenter__()) for _ in range(3)]
        done, waiting = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)

        assert len(waiting) == 2
        assert isinstance(done.pop().exception(), AdmissionUnavailable)
        for caller in waiting:
            caller.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_denials_and_failures_are_told_apart():
    def refuse(_server, acquire):
        if acquire.resources[0] == "lanes/proxy_http":
            denial = pb.Denial(reason=pb.DENIAL_REASON_LANE_FULL, resource="lanes/proxy_http", limit=2, held=2)
            denial.retry_after.seconds = 3
            return pb.Answer(request_id=acquire.request_id, denial=denial)
        failure = pb.Failure(code=3, field="resources[0]", message="no such resource")
        return pb.Answer(request_id=acquire.request_id, failure=failure)

    async with serving(ScriptedServer(answer=refuse)) as target, AdmissionClient(target, "t", "edge-1") as client:
        with pytest.raises(Denied) as denied:
            async with client.acquire(["lanes/proxy_http"]):
                pass
        with pytest.raises(AcquireRejected) as rejected:
            async with client.acquire(["lanes/nonsense"]):
                pass

        assert denied.value.denial.reason is DenialReason.LANE_FULL
        assert denied.value.denial.retry_after == 3
        assert rejected.value.field == "resources[0]"


async def test_a_refused_caller_leaves_nothing_to_the_garbage_collector():
    def refuse(_server, acquire):
        return pb.Answer(request_id=acquire.request_id, denial=pb.Denial(reason=pb.DENIAL_REASON_LANE_FULL))

    async def outcome():
        try:
            async with client.acquire(["lanes/proxy_http"]):
                return "granted"
        except Denied:
            return "denied"

    async with serving(ScriptedServer(answer=refuse)) as target, AdmissionClient(target, "t", "edge-1") as client:
        await client.wait_until_ready(5)
        gc.collect()
        gc.disable()
        try:
            outcomes = [await outcome() for _ in range(3)]
            await eventually(lambda: not any(type(found) is Claim for found in gc.get_objects()))
        finally:
            gc.enable()

    assert outcomes == ["denied", "denied", "denied"]


async def test_after_a_restart_the_client_comes_back_with_what_it_holds():
    first = ScriptedServer()
    second = ScriptedServer(epoch=2)
    async with AdmissionClient("127.0.0.1:1", "t", "edge-1") as unused:
        assert not unused.connected
    async with serving(first) as target:
        client = AdmissionClient(target, "t", "edge-1")
        await client.__aenter__()
        lane = client.acquire(["lanes/proxy_http"], peer="me")
        await lane.__aenter__()
    async with serving(second, port=int(target.rpartition(":")[2])):
        await eventually(lambda: client.epoch == 2)
        hello = second.heard[0].hello
        await client.__aexit__(None, None, None)

    assert hello.epoch == 1
    assert [held.resource for held in hello.held.leases] == ["lanes/proxy_http"]
    assert hello.held.leases[0].peer == "me"


async def test_what_waited_for_an_answer_is_asked_again_with_its_old_id():
    first = ScriptedServer(answer=stays_silent)
    second = ScriptedServer(epoch=2)
    async with serving(first) as target:
        client = AdmissionClient(target, "t", "edge-1")
        await client.__aenter__()
        caller = asyncio.create_task(client.acquire(["lanes/proxy_http"]).__aenter__())
        await eventually(lambda: first.asked)
    async with serving(second, port=int(target.rpartition(":")[2])):
        grant = await asyncio.wait_for(caller, 5)
        held = grant.resources
        await client.__aexit__(None, None, None)

    assert held == ("lanes/proxy_http",)
    assert second.asked == first.asked


async def test_heartbeats_tell_count_and_digest():
    server = ScriptedServer(heartbeat_in=0.05)
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        async with client.acquire(["lanes/proxy_http"]):
            await eventually(lambda: any(r.heartbeat.lease_count == 1 for r in server.heard))
        await eventually(lambda: server.heard[-1].HasField("heartbeat") and not server.heard[-1].heartbeat.lease_count)

        assert server.heard[-1].heartbeat.lease_digest == 0


async def test_a_server_that_stops_acknowledging_is_left_for_a_new_stream():
    server = ScriptedServer(ttl=0.6, heartbeat_in=0.1, acknowledges=False)
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1"):
        await eventually(lambda: server.streams >= 2)


async def test_a_server_that_stops_reading_is_left_for_a_new_stream():
    class Stuck:
        """Welcomes, and then takes nothing more."""

        def __init__(self):
            self.written = 0
            self.welcomed = False
            self.never = asyncio.Event()

        async def write(self, _request):
            self.written += 1
            if self.written > 1:
                await self.never.wait()

        async def read(self):
            if self.welcomed:
                await self.never.wait()
            self.welcomed = True
            welcome = session_pb.SessionResponse(number=1, welcome=session_pb.Welcome(epoch=1))
            welcome.welcome.ttl.seconds = 15
            return welcome

    streams = []

    @contextlib.asynccontextmanager
    async def open_stream():
        streams.append(Stuck())
        yield streams[-1]

    with capture_logs() as logs:
        async with AdmissionClient("stuck", "t", "edge-1", connect_timeout=0.05, open_stream=open_stream):
            await eventually(lambda: len(streams) >= 2)

    stopped = [entry for entry in logs if entry["event"] == "admission server has stopped reading"]
    assert stopped
    assert {entry["log_level"] for entry in logs} <= {"info", "warning"}, "the server's trouble is no fault of ours"


async def test_a_superseded_session_ends_loudly_and_for_good():
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=SUPERSEDED, domain="sluicegate"))
    status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="taken over", details=[detail])
    server = ScriptedServer(answer=stays_silent)
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        caller = asyncio.create_task(client.acquire(["lanes/proxy_http"]).__aenter__())
        await eventually(lambda: server.asked)
        server.refuse(grpc.StatusCode.ABORTED, "taken over", (("grpc-status-details-bin", status.SerializeToString()),))

        with pytest.raises(SessionSuperseded):
            await asyncio.wait_for(caller, 5)
        with pytest.raises(SessionSuperseded):
            async with client.acquire(["lanes/proxy_http"]):
                pass
        assert server.streams == 1


async def test_reports_travel_without_waiting():
    server = ScriptedServer()
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        client.report(AccountReport(account_id="acc_1", outcome=Outcome.AUTH_REJECTED, credential_version=4))
        await eventually(lambda: any(request.reports for request in server.heard))

        report = next(request.reports[0] for request in server.heard if request.reports)
        assert report.account_id == "acc_1"
        assert report.outcome == pb.OUTCOME_AUTH_REJECTED


async def test_part_of_a_grant_can_be_given_back_early():
    server = ScriptedServer()
    async with serving(server) as target, AdmissionClient(target, "t", "edge-1") as client:
        async with client.acquire(["stages/response_create", "accounts/-/streams"]) as work:
            work.release("stages/response_create")
            left = work.resources
            still_live = work.live
            await eventually(lambda: len(server.released) == 1)
        await eventually(lambda: len(server.released) == 2)

        assert left == ("accounts/-/streams",)
        assert still_live
