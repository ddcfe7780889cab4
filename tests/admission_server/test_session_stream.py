"""`Session` over a real socket: what a holder says and hears."""

import asyncio

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import state_service_pb2 as state_pb
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from admission_server import wire
from tests.admission_server.running import WITHIN, account, acquire_of, eventually, limit, metadata, running_server


async def test_a_seat_is_granted_and_given_back(running):
    await running.policy()
    async with running.holder() as holder:
        answer = await holder.acquire("lanes/proxy_http", request_id="turn-1")
        held = running.held("lanes/proxy_http")
        await holder.release(*answer.grant.lease_ids)
        await eventually(lambda: running.held("lanes/proxy_http") == 0)

    assert answer.request_id == "turn-1"
    assert [lease_id >> 40 for lease_id in answer.grant.lease_ids] == [holder.welcome.epoch]
    assert held == 1


async def test_a_full_lane_refuses_and_explains(running):
    await running.policy()
    async with running.holder() as holder:
        for _ in range(2):
            await holder.acquire("lanes/proxy_http")
        answer = await holder.acquire("lanes/proxy_http")

    denial = answer.denial
    assert denial.reason == pb.DENIAL_REASON_LANE_FULL
    assert (denial.resource, denial.limit, denial.held, denial.waiters) == ("lanes/proxy_http", 2, 2, 0)
    assert 1 <= denial.retry_after.seconds <= 32
    assert denial.message


async def test_one_message_carries_many_acquires_and_releases_go_first(running):
    await running.policy()
    async with running.holder() as holder:
        first = await holder.acquire("lanes/proxy_http")
        second = await holder.acquire("lanes/proxy_http")
        await holder.say(
            acquires=[acquire_of("lanes/proxy_http"), acquire_of("lanes/proxy_http")],
            releases=[pb.Release(lease_ids=[*first.grant.lease_ids, *second.grant.lease_ids])],
        )
        message = await holder.hear()

    assert [answer.WhichOneof("result") for answer in message.answers] == ["grant", "grant"]


async def test_a_waiter_is_woken_by_a_release_of_another_holder(running):
    await running.policy()
    async with running.holder("edge-1/0") as one, running.holder("edge-2/0") as two:
        first = await one.acquire("stages/response_create")
        await one.acquire("stages/response_create")
        await two.say(acquires=[acquire_of("stages/response_create", request_id="patient")])
        await eventually(lambda: running.server.ledger.waiting == 1)
        await one.release(*first.grant.lease_ids)
        answer = await two.answer()

    assert answer.request_id == "patient"
    assert answer.HasField("grant")


async def test_a_wait_that_is_over_is_denied_with_the_reason_of_what_was_waited_for(running):
    await running.policy(limits=[limit("stages/response_create", 1, max_wait=0.2)])
    async with running.holder() as holder:
        await holder.acquire("stages/response_create")
        answer = await holder.acquire("stages/response_create")

    assert answer.denial.reason == pb.DENIAL_REASON_STAGE_FULL


async def test_work_comes_with_an_account_and_its_credential(running):
    await running.policy(accounts=[account("acc_1", upstream_account_id="up-1", credential_version=7)])
    async with running.holder() as holder:
        answer = await holder.acquire(
            "stages/response_create", "accounts/-/streams", "accounts/-/response_creates", account=pb.AccountNeeds()
        )
        leases = await running.state.ListLeases(state_pb.ListLeasesRequest(account_id="acc_1"))

    granted = answer.grant.account
    assert (granted.account_id, granted.upstream_account_id) == ("acc_1", "up-1")
    assert (granted.access_token, granted.credential_version) == ("secret-of-acc_1", 7)
    assert granted.base_url == "https://upstream.example"
    assert granted.streams_held == 1
    assert [lease.resource for lease in leases.leases] == [
        "stages/response_create", "accounts/acc_1/streams", "accounts/acc_1/response_creates",
    ]  # fmt: skip


async def test_a_worker_is_never_given_a_credential(running):
    await running.policy(accounts=[account("acc_1")])
    async with running.holder(role="worker") as holder:
        answer = await holder.acquire("accounts/-/streams", account=pb.AccountNeeds())

    assert answer.grant.account.account_id == "acc_1"
    assert answer.grant.account.access_token == ""


async def test_a_malformed_acquire_fails_by_field_and_the_stream_goes_on(running):
    await running.policy()
    async with running.holder() as holder:
        wrong = [
            await holder.acquire("lanes/proxy_http", request_id="x" * 129),
            await holder.acquire("lanes/nowhere"),
            await holder.acquire("lanes/proxy_http", "stages/response_create"),
            await holder.acquire("lanes/proxy_http", key_sha256=b"short"),
            await holder.acquire("stages/response_create", "keys/-/streams"),
        ]
        fine = await holder.acquire("lanes/proxy_http")

    assert [(answer.failure.code, answer.failure.field) for answer in wrong] == [
        (3, "request_id"), (3, "resources[0]"), (3, "resources[0]"), (3, "key_sha256"), (3, "resources[1]"),
    ]  # fmt: skip
    assert fine.HasField("grant")


async def test_the_same_request_id_gets_the_same_answer(running):
    await running.policy()
    async with running.holder() as holder:
        first = await holder.acquire("lanes/proxy_http", request_id="again")
        second = await holder.acquire("lanes/proxy_http", request_id="again")

    assert list(first.grant.lease_ids) == list(second.grant.lease_ids)
    assert running.held("lanes/proxy_http") == 1


async def test_a_release_that_overtakes_its_acquire_withdraws_it(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.say(releases=[pb.Release(request_id="gone")])
        answer = await holder.acquire("lanes/proxy_http", request_id="gone")

    assert answer.denial.reason == pb.DENIAL_REASON_WITHDRAWN
    assert running.held("lanes/proxy_http") == 0


async def test_a_heartbeat_is_acknowledged_and_equal_books_ask_for_nothing(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        message = await holder.beat()

    assert message.heartbeat_ack.sequence == 1
    assert message.heartbeat_ack.has_policy
    assert 0.3 < message.heartbeat_ack.heartbeat_in.ToMilliseconds() / 1000 <= 0.4
    assert not message.send_held


async def test_a_lost_answer_is_found_and_its_seat_comes_back(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        holder.leases.clear()
        asked = await holder.beat()
        await holder.beat(held=session_pb.LeaseList(seen=holder.seen))
        await eventually(lambda: running.held("lanes/proxy_http") == 0)

    assert asked.send_held
    assert running.server.ledger.reclaimed["leaked"] == 1


async def test_a_lease_that_nobody_granted_is_dropped(running):
    await running.policy()
    async with running.holder() as holder:
        invented = (holder.welcome.epoch << 40) + 77
        held = session_pb.LeaseList(
            seen=holder.seen, leases=[session_pb.HeldLease(lease_id=invented, resource="lanes/proxy_http")]
        )
        message = await holder.beat(held=held)

    assert list(message.heartbeat_ack.dropped_lease_ids) == [invented]
    assert running.held("lanes/proxy_http") == 0


async def test_a_silent_session_ends_and_all_its_seats_return(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        holder.call.cancel()
        await eventually(lambda: not running.server.ledger.sessions)

    assert running.held("lanes/proxy_http") == 0
    assert running.server.ledger.ended == {"expired": 1}


async def test_close_returns_the_seats_at_once_and_ends_the_stream_in_order(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        await holder.say(close=True)
        async with asyncio.timeout(WITHIN):
            end = await holder.call.read()
            code = await holder.call.code()

    assert not isinstance(end, session_pb.SessionResponse)
    assert code is grpc.StatusCode.OK
    assert running.held("lanes/proxy_http") == 0


async def test_a_new_incarnation_ends_the_old_one_loudly(running):
    await running.policy()
    async with running.holder("edge-1/0") as old:
        await old.acquire("lanes/proxy_http")
        async with running.holder("edge-1/0"):
            error = await old.over()
            held = running.held("lanes/proxy_http")
            with pytest.raises(grpc.aio.AioRpcError) as zombie:
                async with running.holder("edge-1/0", session_id=old.session_id):
                    pass

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert b"SESSION_SUPERSEDED" in dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert zombie.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert held == 0


async def test_hello_on_a_new_stream_fences_the_old_one_and_repeats_lost_answers(running):
    await running.policy()
    async with running.holder() as old:
        granted = await old.acquire("lanes/proxy_http", request_id="lost")
        held = session_pb.LeaseList(seen=1)
        async with running.holder(session_id=old.session_id, held=held, epoch=old.welcome.epoch) as new:
            error = await old.over()
            repeated = [*new.first.answers]
            message = await new.beat()

    assert error.code() is grpc.StatusCode.ABORTED
    assert new.welcome.resumed
    assert [list(answer.grant.lease_ids) for answer in repeated] == [list(granted.grant.lease_ids)]
    assert not message.send_held
    assert running.held("lanes/proxy_http") == 1


async def test_hello_without_a_session_id_is_refused_by_field(running):
    call = running.unary.Session(metadata=metadata("edge"))
    await call.write(session_pb.SessionRequest(hello=session_pb.Hello(instance="x", session_id="no!")))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "hello.session_id" in str(caught.value.details())


async def test_a_session_of_another_role_cannot_be_taken_over(running):
    async with running.holder() as holder:
        call = running.unary.Session(metadata=metadata("worker"))
        hello = session_pb.Hello(instance="edge-1/0", session_id=holder.session_id)
        await call.write(session_pb.SessionRequest(hello=hello))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_instance_of_another_role_cannot_be_superseded(running):
    await running.policy()
    async with running.holder("edge-1/0") as holder:
        await holder.acquire("lanes/proxy_http")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with running.holder("edge-1/0", role="worker"):
                pass

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_acquires_of_a_fresh_server_wait_for_its_policy(running):
    async with running.holder() as holder:
        await holder.say(acquires=[acquire_of("lanes/proxy_http")])
        await eventually(lambda: running.server.ledger.waiting == 1)
        await running.policy()
        answer = await holder.answer()

    assert answer.HasField("grant")


async def test_a_restart_takes_back_what_runs_and_grants_nothing_above_the_limit(tmp_path):
    async with running_server(tmp_path) as before:
        await before.policy()
        async with before.holder() as holder:
            answers = [await holder.acquire("lanes/proxy_http") for _ in range(2)]
    held = session_pb.LeaseList(
        seen=holder.seen,
        leases=[
            session_pb.HeldLease(lease_id=answer.grant.lease_ids[0], resource="lanes/proxy_http", peer="127.0.0.1")
            for answer in answers
        ],
    )
    async with running_server(tmp_path) as after:
        recovering = (await after.state.GetState(state_pb.GetStateRequest())).recovering
        await after.policy()
        async with after.holder(session_id=holder.session_id, held=held, epoch=holder.welcome.epoch) as back:
            refused = await back.acquire("lanes/proxy_http")

        assert [session.session_id for session in recovering] == [holder.session_id]
        assert back.welcome.epoch == holder.welcome.epoch + 1
        assert not back.welcome.resumed
        assert not back.welcome.dropped_lease_ids
        assert after.held("lanes/proxy_http") == 2
        assert refused.denial.reason == pb.DENIAL_REASON_LANE_FULL


async def test_while_holders_are_missing_work_waits_or_is_denied_recovering(tmp_path):
    async with running_server(tmp_path) as before:
        await before.policy()
        async with before.holder("edge-1/0"):
            pass
    async with running_server(tmp_path) as after:
        await after.policy()
        async with after.holder("edge-2/0") as other:
            hasty = await other.acquire("lanes/proxy_http", max_wait=Duration())
            patient = await other.acquire("lanes/proxy_http")

    assert hasty.denial.reason == pb.DENIAL_REASON_RECOVERING
    assert 1 <= hasty.denial.retry_after.seconds <= 2
    assert patient.HasField("grant")


LONG_ID = "r" * 129


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"acquires": [pb.Acquire()] * (wire.MOST_ACQUIRES + 1)}, "acquires"),
        ({"reports": [pb.AccountReport()] * (wire.MOST_REPORTS + 1)}, "reports"),
        ({"releases": [pb.Release()] * (wire.MOST_RELEASES + 1)}, "releases"),
        ({"releases": [pb.Release(lease_ids=range(20_001))]}, "releases.lease_ids"),
        (
            {"heartbeat": session_pb.Heartbeat(held=session_pb.LeaseList(leases=[session_pb.HeldLease()] * 20_001))},
            "heartbeat.held.leases",
        ),
    ],
)
async def test_a_message_that_says_too_much_at_once_ends_its_stream(running, message, field):
    await running.policy()
    async with running.holder() as holder:
        await holder.say(**message)
        error = await holder.over()

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith(f"{field}: ")


async def test_a_hello_that_claims_too_much_opens_no_session(running):
    held = session_pb.LeaseList(leases=[session_pb.HeldLease()] * 20_001)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with running.holder(held=held) as holder:
            await holder.over()

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not running.server.ledger.sessions


async def test_a_withdrawal_of_what_cannot_have_been_asked_for_is_not_remembered(running):
    await running.policy()
    async with running.holder() as holder:
        await holder.say(releases=[pb.Release(request_id=LONG_ID), pb.Release(request_id="short")])
        await holder.beat()
        remembered = list(running.server.ledger.sessions[holder.session_id].withdrawals)

    assert remembered == ["short"]


async def test_a_message_that_cannot_be_written_is_an_error_and_not_the_end_in_order(running, monkeypatch):
    await running.policy()
    with capture_logs() as logs:
        async with running.holder() as holder:
            monkeypatch.setattr("admission_server.servicer.fill_answer", _unwritable)
            await holder.say(acquires=[acquire_of("lanes/proxy_http")])
            error = await holder.over()

    assert error.code() is grpc.StatusCode.UNKNOWN
    assert [entry["log_level"] for entry in logs if entry["event"] == "message cannot be written"] == ["error"]


def _unwritable(*_args, **_fields):
    raise ValueError("a field that cannot hold its value")
