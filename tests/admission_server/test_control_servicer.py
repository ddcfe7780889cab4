"""`ControlService` over a real socket: policy down, signals up."""

import asyncio

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import state_service_pb2 as state_pb
from google.protobuf.duration_pb2 import Duration

from admission_server.accounts import Outcome, Report, Verdict
from tests.admission_server.running import LIMITS, account, eventually, limit, metadata


async def test_a_snapshot_is_answered_with_its_version(running):
    async with running.controller(term=5) as controller:
        answer = await controller.snapshot(3)

    assert controller.welcome.policy_version == 0
    assert answer.applied.version == 3
    assert running.server.ledger.catalogue.version == 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limits": [limit("lanes/a", 1), limit("rooms/b", 1)]}, "snapshot.settings.resources[1].name"),
        ({"limits": [limit("lanes/a", 1), limit("lanes/a", 2)]}, "snapshot.settings.resources[1].name"),
        ({"limits": [limit("lanes/a", 2**31)]}, "snapshot.settings.resources[0].limit"),
        ({"accounts": [account("Bad Id")]}, "snapshot.accounts[0].account_id"),
        ({"accounts": [account("a", status=0)]}, "snapshot.accounts[0].status"),
        ({"accounts": [account("a"), account("a")]}, "snapshot.accounts[1].account_id"),
        ({"keys": [control_pb.KeyPolicy(key_id="k", key_sha256=b"1")]}, "snapshot.keys[0].key_sha256"),
        ({"fair_share_threshold_percent": 101}, "snapshot.settings.fair_share_threshold_percent"),
    ],
)
async def test_a_wrong_policy_is_refused_as_a_whole_and_names_the_field(running, fields, field):
    async with running.controller() as controller:
        await controller.snapshot(1)
        answer = await controller.snapshot(2, **fields)

    assert (answer.rejected.version, answer.rejected.field) == (2, field)
    assert running.server.ledger.catalogue.version == 1
    assert "lanes/proxy_http" in running.server.ledger.catalogue.resources


async def test_deltas_build_on_the_version_in_force(running):
    async with running.controller() as controller:
        await controller.snapshot(1, accounts=[account("one"), account("two")])
        applied = await controller.delta(2, 1, accounts=[account("three")], removed_account_ids=["one"])
        refused = await controller.delta(4, 3)

    assert applied.applied.version == 2
    assert set(running.server.ledger.catalogue.selector.accounts) == {"two", "three"}
    assert (refused.rejected.version, refused.rejected.field) == (4, "")


async def test_a_raised_limit_lets_waiters_in_at_once(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, limits=[limit("stages/response_create", 1, max_wait=5.0)])
        await holder.acquire("stages/response_create")
        waiting = asyncio.ensure_future(holder.acquire("stages/response_create"))
        await eventually(lambda: running.server.ledger.waiting == 1)
        settings = control_pb.PolicySettings(resources=[limit("stages/response_create", 2, max_wait=5.0)])
        await controller.delta(2, 1, settings=settings)
        answer = await waiting

    assert answer.HasField("grant")


async def test_a_lowered_limit_kills_nothing_and_grants_nothing(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1)
        answers = [await holder.acquire("lanes/proxy_http") for _ in range(2)]
        await controller.delta(2, 1, settings=control_pb.PolicySettings(resources=[limit("lanes/proxy_http", 1)]))
        overdraft = running.server.ledger.catalogue.resources["lanes/proxy_http"].overdraft
        await holder.release(*answers[0].grant.lease_ids)
        refused = await holder.acquire("lanes/proxy_http")
        await holder.release(*answers[1].grant.lease_ids)
        granted = await holder.acquire("lanes/proxy_http")

    assert overdraft == 1
    assert refused.denial.reason == pb.DENIAL_REASON_LANE_FULL
    assert granted.HasField("grant")


async def test_a_paused_lane_grants_nothing_and_zero_means_unlimited(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, limits=[limit("lanes/a", 5, paused=True), limit("lanes/b", 0)])
        paused = await holder.acquire("lanes/a")
        many = [await holder.acquire("lanes/b") for _ in range(20)]

    assert paused.denial.reason == pb.DENIAL_REASON_PAUSED
    assert all(answer.HasField("grant") for answer in many)
    assert running.server.ledger.catalogue.resources["lanes/b"].overdraft == 0


async def test_an_older_term_is_refused_and_a_newer_one_takes_over(running):
    async with running.controller(term=10) as old:
        async with running.controller(term=11):
            with pytest.raises(grpc.aio.AioRpcError) as taken_over:
                await old.hear()
        with pytest.raises(grpc.aio.AioRpcError) as too_old:
            async with running.controller(term=10):
                pass

    assert taken_over.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert too_old.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_signals_are_sent_until_they_are_acknowledged(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, accounts=[account("acc_1")])
        report = pb.AccountReport(
            account_id="acc_1", credential_version=1, outcome=pb.OUTCOME_AUTH_REJECTED, status=401
        )
        await holder.say(reports=[report])
        (signal,) = await controller.signals()
        async with running.controller() as successor:
            (again,) = await successor.signals()
            ack = control_pb.SyncRequest(signal_ack=control_pb.SignalAck(sequences=[again.sequence]))
            await successor.call.write(ack)
            await eventually(lambda: not running.server._signals)

    assert signal.account_id == "acc_1"
    assert signal.status_event.outcome == pb.OUTCOME_AUTH_REJECTED
    assert signal.status_event.refresh_wanted
    assert signal.counters.failed == 1
    assert again.sequence == signal.sequence


async def test_a_session_is_forgotten_by_hand(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        request = control_pb.ForgetSessionRequest(session_id=holder.session_id)
        forgotten = await running.control.ForgetSession(request, metadata=metadata("control"))
        error = await holder.over()
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await running.control.ForgetSession(request, metadata=metadata("control"))

    assert forgotten.ended == 1
    assert error.code() is grpc.StatusCode.ABORTED
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert running.held("lanes/proxy_http") == 0


async def test_the_policy_stays_when_the_controller_leaves(running):
    await running.policy(limits=LIMITS)
    async with running.holder() as holder:
        answer = await holder.acquire("lanes/proxy_http")

    assert answer.HasField("grant")


EXTREME = pb.AccountReport(
    account_id="acc_1",
    credential_version=2**64 - 1,
    outcome=pb.OUTCOME_RATE_LIMITED,
    status=2**32 - 1,
    code="c" * 128,
    resets_after=Duration(seconds=2**63 - 1, nanos=2**31 - 1),
    usage=pb.TokenUsage(input_tokens=2**64 - 1, output_tokens=2**64 - 1),
    windows=[
        pb.RateLimitWindow(length=Duration(seconds=2**63 - 1), used_percent=1e308),
        pb.RateLimitWindow(length=Duration(seconds=-(2**63)), used_percent=float("nan")),
        pb.RateLimitWindow(length=Duration(seconds=60), resets_after=Duration(seconds=-(2**63))),
    ],
)


async def test_no_report_that_a_holder_can_make_ends_the_stream_of_signals(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, accounts=[account("acc_1")])
        await holder.say(reports=[EXTREME, EXTREME])
        (signal,) = await controller.signals()
        answer = await controller.snapshot(2, accounts=[account("acc_1")])

    assert signal.counters.failed == 2
    assert signal.counters.usage.input_tokens == 2 * 10**12
    assert signal.status_event.resets_after.seconds > 366 * 86400
    assert answer.HasField("applied")


async def test_a_signal_that_cannot_be_written_keeps_no_other_from_being_told(running):
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, accounts=[account("acc_1"), account("acc_2")])
        bad = Report(account_id="acc_1", outcome=Outcome.RATE_LIMITED, status=-1)
        running.server._signals.record(bad, Verdict(concerns_status=True), 0.0)
        await holder.say(reports=[pb.AccountReport(account_id="acc_2", outcome=pb.OUTCOME_SUCCEEDED)])
        signals = await controller.signals()

    assert [signal.account_id for signal in signals] == ["acc_2"]


async def test_no_duration_of_a_policy_makes_the_state_or_a_denial_unwritable(running):
    forever = Duration(seconds=2**63 - 1)
    endless = control_pb.ResourceSettings(name="lanes/a", limit=1, max_wait=forever, max_hold=forever)
    async with running.controller() as controller, running.holder() as holder:
        await controller.snapshot(1, limits=[endless], accounts=[account("acc_1", blocked_for=forever)])
        refused = await holder.acquire("accounts/-/streams", account=pb.AccountNeeds())
        state = await running.state.GetState(state_pb.GetStateRequest())
        accounts = await running.state.ListAccounts(state_pb.ListAccountsRequest())

    assert refused.denial.retry_after.seconds > 366 * 86400
    assert state.resources[0].max_wait.seconds > 366 * 86400
    assert accounts.accounts[0].blocked_for.seconds > 366 * 86400
