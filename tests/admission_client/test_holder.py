"""The holder's state machine, message by message, with the clock moved by hand."""

import math
from typing import Any

import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb

from admission_client.digest import splitmix64
from admission_client.errors import AcquireRejected, AdmissionUnavailable, Denied, SessionSuperseded
from admission_client.holder import Claim, Holder
from admission_client.lease import (
    AccountNeeds,
    AccountReport,
    Credits,
    DenialReason,
    Outcome,
    RateLimitWindow,
    TokenUsage,
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def holder(clock):
    return Holder(instance="edge-1", session_id="s_1", clock=clock)


def response(number, **fields):
    return session_pb.SessionResponse(number=number, **fields)


def welcome(number=1, *, epoch=1, has_policy=True, resumed=True, dropped=()):
    message = session_pb.Welcome(epoch=epoch, has_policy=has_policy, resumed=resumed, dropped_lease_ids=dropped)
    message.ttl.seconds = 15
    message.heartbeat_in.seconds = 5
    return response(number, welcome=message)


def granted(number, request_id, *lease_ids, **grant):
    return response(number, answers=[pb.Answer(request_id=request_id, grant=pb.Grant(lease_ids=lease_ids, **grant))])


def acknowledged(number, sequence, *, dropped=()):
    ack = session_pb.HeartbeatAck(sequence=sequence, has_policy=True, dropped_lease_ids=dropped)
    ack.heartbeat_in.seconds = 5
    return response(number, heartbeat_ack=ack)


def connect(holder, number=1, **fields):
    hello = holder.hello()
    holder.received(welcome(number, **fields))
    return hello


def ask(holder, *resources, **fields):
    claim = Claim(resources or ("lanes/proxy_http",), **fields)
    holder.ask(claim)
    return claim


def hold(holder, number, *lease_ids, resources=("lanes/proxy_http",), **fields):
    claim = ask(holder, *resources, **fields)
    holder.take()
    holder.received(granted(number, claim.request_id, *lease_ids))
    return claim


def test_nothing_is_said_before_the_welcome(holder):
    holder.hello()
    ask(holder)

    assert holder.take() is None


def test_whatever_piled_up_goes_into_one_message(holder):
    connect(holder)
    first = hold(holder, 2, 7)
    holder.release(first)
    ask(holder)
    ask(holder)
    holder.report(AccountReport(account_id="acc_1"))

    message = holder.take()

    assert [list(release.lease_ids) for release in message.releases] == [[7]]
    assert len(message.acquires) == 2
    assert len(message.reports) == 1
    assert holder.take() is None


def test_a_crowd_is_sent_in_several_messages_so_that_both_sides_work_at_once(holder):
    connect(holder)
    claims = [ask(holder) for _ in range(100)]
    messages = list(iter(holder.take, None))

    assert [len(message.acquires) for message in messages] == [64, 36]
    assert [a.request_id for message in messages for a in message.acquires] == [c.request_id for c in claims]


def test_request_ids_count_in_base_36_after_their_label(holder):
    connect(holder)
    labels = [ask(holder, label="req").request_id for _ in range(1300)]

    assert labels[0] == "req.01"
    assert labels[35] == "req.10"
    assert labels[1294] == "req.zz"
    assert labels[1295] == "req.100"
    assert len(set(labels)) == 1300


def test_a_long_label_stays_within_the_bound_of_request_ids(holder):
    connect(holder)

    assert len(ask(holder, label="é" * 200).request_id.encode()) <= 128


def test_an_acquire_withdrawn_before_it_was_sent_is_never_sent(holder):
    connect(holder)
    claim = ask(holder)
    holder.abandon(claim)

    assert holder.take() is None


def test_an_acquire_withdrawn_after_it_was_sent_is_released_by_its_id(holder):
    connect(holder)
    claim = ask(holder)
    holder.take()
    holder.abandon(claim)

    message = holder.take()

    assert [release.request_id for release in message.releases] == [claim.request_id]


def test_a_grant_nobody_waits_for_is_given_back(holder):
    connect(holder)
    claim = ask(holder)
    holder.take()
    holder.abandon(claim)
    holder.take()
    holder.received(granted(2, claim.request_id, 7))

    message = holder.take()

    assert [list(release.lease_ids) for release in message.releases] == [[7]]
    assert holder.lease_count == 0


def test_an_answer_that_comes_twice_changes_nothing(holder):
    connect(holder)
    claim = hold(holder, 2, 7)
    holder.received(granted(3, claim.request_id, 7))

    assert holder.take() is None
    assert holder.lease_ids == {7}


def test_a_claim_that_was_granted_while_its_caller_left_is_released(holder):
    connect(holder)
    claim = hold(holder, 2, 7)
    holder.abandon(claim)

    assert list(holder.take().releases[0].lease_ids) == [7]


def test_names_are_filled_in_from_the_grant(holder):
    connect(holder)
    claim = ask(holder, "keys/-/streams", "accounts/-/streams", key_sha256=b"k" * 32)
    holder.take()
    account = pb.AccountGrant(account_id="acc_1", kind=pb.ACCOUNT_KIND_CHATGPT)
    holder.received(granted(2, claim.request_id, 7, 8, account=account, key_id="key_1"))

    assert claim.held_resources == ("keys/key_1/streams", "accounts/acc_1/streams")


def test_a_heartbeat_describes_the_set_after_what_was_seen_and_released(holder, clock):
    connect(holder)
    kept = hold(holder, 2, 7)
    given_back = hold(holder, 3, 8)
    clock.now += 5
    holder.release(given_back)

    message = holder.take()

    assert kept.held
    assert message.heartbeat.sequence == 1
    assert message.heartbeat.seen == 3
    assert message.heartbeat.lease_count == 1
    assert message.heartbeat.lease_digest == splitmix64(7)
    assert list(message.releases[0].lease_ids) == [8]


def test_the_complete_list_is_sent_at_once_when_asked_for(holder, clock):
    connect(holder)
    hold(holder, 2, 7, peer="me")
    clock.now += 2
    holder.received(response(3, send_held=True))

    held = holder.take().heartbeat.held

    assert held.seen == 3
    assert [(lease.lease_id, lease.resource, lease.peer, lease.age.seconds) for lease in held.leases] == [
        (7, "lanes/proxy_http", "me", 2)
    ]


def test_a_lease_is_live_until_ttl_after_the_last_acknowledged_heartbeat_was_sent(holder, clock):
    connect(holder)
    claim = hold(holder, 2, 7)
    clock.now += 5
    sequence = holder.take().heartbeat.sequence
    clock.now += 4
    holder.received(acknowledged(3, sequence))

    assert holder.live_until == 120.0
    assert holder.is_live(claim)
    clock.now = 120.0
    assert not holder.is_live(claim)


def test_without_a_policy_heartbeats_ask_often(holder, clock):
    connect(holder, has_policy=False)

    assert not holder.has_policy
    assert holder.deadline() == clock.now + 0.5


def test_a_new_stream_says_everything_again_that_may_not_have_arrived(holder):
    connect(holder)
    kept, given_back = hold(holder, 2, 7), hold(holder, 3, 8)
    waiting = ask(holder)
    withdrawn = ask(holder)
    holder.take()
    holder.release(given_back)
    holder.abandon(withdrawn)
    holder.take()
    holder.disconnected()

    hello = holder.hello()

    assert kept.held
    assert hello.hello.held.seen == 3
    assert [lease.lease_id for lease in hello.hello.held.leases] == [7]
    assert [list(release.lease_ids) for release in hello.releases if release.lease_ids] == [[8]]
    assert [release.request_id for release in hello.releases if release.request_id] == [withdrawn.request_id]
    assert [acquire.request_id for acquire in hello.acquires] == [waiting.request_id]


def test_what_an_answer_proves_to_have_arrived_is_not_said_again(holder):
    connect(holder)
    first = hold(holder, 2, 7)
    holder.release(first)
    hold(holder, 3, 8)
    holder.disconnected()

    hello = holder.hello()

    assert list(hello.releases) == []


def test_what_an_acknowledged_heartbeat_proves_to_have_arrived_is_not_said_again(holder, clock):
    connect(holder)
    holder.release(hold(holder, 2, 7))
    clock.now += 5
    sequence = holder.take().heartbeat.sequence
    holder.received(acknowledged(3, sequence))
    holder.disconnected()

    assert list(holder.hello().releases) == []


def test_reports_that_may_have_arrived_come_again_without_their_usage(holder):
    connect(holder)
    report = AccountReport(account_id="acc_1", outcome=Outcome.SUCCEEDED, usage=TokenUsage(input_tokens=5))
    holder.report(report)
    holder.take()
    holder.disconnected()

    reports = holder.hello().reports

    assert [(r.account_id, r.HasField("usage")) for r in reports] == [("acc_1", False)]


def test_reports_are_merged_while_the_server_is_away(holder):
    for _ in range(3):
        holder.report(AccountReport(account_id="acc_1", usage=TokenUsage(input_tokens=5)))

    reports = holder.hello().reports

    assert [r.usage.input_tokens for r in reports] == [15]


STRANGE_REPORTS = {
    "usage": AccountReport(account_id="acc_1", usage=TokenUsage(input_tokens=10**30, output_tokens=-1)),
    "status": AccountReport(account_id="acc_1", outcome=Outcome.TRANSIENT_ERROR, status=2**40),
    "negative status": AccountReport(account_id="acc_1", status=-1),
    "reset without end": AccountReport(account_id="acc_1", outcome=Outcome.RATE_LIMITED, resets_after=math.inf),
    "reset that is no number": AccountReport(account_id="acc_1", resets_after=math.nan),
    "code": AccountReport(account_id="acc_1", code="\ud800"),
    "long code": AccountReport(account_id="acc_1", code="x" * 5_000_000),
    "balance": AccountReport(account_id="acc_1", credits=Credits(balance="\udcff")),
    "window": AccountReport(account_id="acc_1", windows=(RateLimitWindow(length=math.inf, used_percent=math.nan),)),
    "owned key": AccountReport(account_id="acc_1", owned_keys=("response:\ud800", "x" * 129)),
}


@pytest.mark.parametrize("what", STRANGE_REPORTS)
def test_numbers_and_text_of_strangers_are_said_as_far_as_they_fit(holder, what):
    connect(holder)
    holder.report(STRANGE_REPORTS[what])
    message = holder.take()
    holder.disconnected()
    holder.report(STRANGE_REPORTS[what])
    hello = holder.hello()

    assert [report.account_id for report in message.reports] == ["acc_1"]
    assert "acc_1" in {report.account_id for report in hello.reports}
    assert hello.ByteSize() < 1000
    assert not any(report.owned_keys for report in message.reports)


SOMETHING_ELSE: Any = "many"
BROKEN_REPORTS: dict[str, dict[str, Any]] = {
    "text for a number": {"resets_after": "soon"},
    "text for a count": {"usage": TokenUsage(input_tokens=SOMETHING_ELSE)},
    "a list": {"owned_keys": ["a"]},
    "a number for text": {"code": 7},
    "no outcome": {"outcome": "great"},
    "no usage": {"usage": 7},
    "no window": {"windows": (7, 8)},
}


@pytest.mark.parametrize("what", BROKEN_REPORTS)
def test_a_report_that_is_none_is_dropped_alone(holder, what):
    broken = AccountReport(account_id="acc_1", **BROKEN_REPORTS[what])
    sound = AccountReport(account_id="acc_2")
    for _ in range(2):
        holder.report(broken)  # the second is merged with the first
    holder.report(sound)
    hellos = [connect(holder)]
    for _ in range(2):
        holder.report(broken)
    holder.report(sound)
    message = holder.take()
    holder.report(broken)
    holder.disconnected()
    hellos.append(connect(holder))

    for said in (*hellos, message):
        assert "acc_2" in {report.account_id for report in said.reports}


STRANGE_ACQUIRES: dict[str, dict[str, Any]] = {
    "model": {"needs": AccountNeeds(model="\ud800")},
    "affinity": {"needs": AccountNeeds(affinity_keys=("\ud800",))},
    "version": {"needs": AccountNeeds(newer_than_credential_version=-1)},
    "kind": {"needs": AccountNeeds(kind=SOMETHING_ELSE)},
    "peer": {"peer": "\ud800"},
    "key": {"key_sha256": "text"},
    "wait": {"max_wait": "long"},
    "size": {"needs": AccountNeeds(model="m" * 5_000_000)},
    "long peer": {"peer": "p" * 5_000_000},
}


@pytest.mark.parametrize("what", STRANGE_ACQUIRES)
@pytest.mark.parametrize("away", [False, True])
def test_an_acquire_that_cannot_be_said_is_rejected_alone(holder, what, away):
    if not away:
        connect(holder)
    first, bad, last = ask(holder), ask(holder, **STRANGE_ACQUIRES[what]), ask(holder)
    message = connect(holder) if away else holder.take()

    assert isinstance(bad.error, AcquireRejected)
    assert [acquire.request_id for acquire in message.acquires] == [first.request_id, last.request_id]
    assert [list(acquire.resources) for acquire in message.acquires] == [["lanes/proxy_http"]] * 2
    assert holder.pending_count == 2


def test_what_one_acquire_needs_is_not_said_for_the_next_of_the_same_flow(holder):
    connect(holder)
    work = ("stages/response_create", "accounts/-/streams")
    ask(holder, *work, peer="me", needs=AccountNeeds(model="gpt-5.5"), max_wait=3.0)
    ask(holder, *work, peer="me")
    ask(holder, *work, key_sha256=b"k" * 32)
    ask(holder, *work)
    first, *others = holder.take().acquires

    assert (first.account.model, first.max_wait.seconds) == ("gpt-5.5", 3)
    assert not any(acquire.HasField("account") or acquire.HasField("max_wait") for acquire in others)
    assert all(list(acquire.resources) == list(work) for acquire in (first, *others))
    assert [acquire.peer for acquire in (first, *others)] == ["me", "me", "", ""]
    assert [acquire.key_sha256 for acquire in (first, *others)] == [b"", b"", b"k" * 32, b""]


def test_every_one_of_very_many_flows_is_said(holder):
    connect(holder)
    peers = [f"peer-{n % 1_500}" for n in range(3_000)]
    for peer in peers:
        ask(holder, peer=peer)

    assert [acquire.peer for message in iter(holder.take, None) for acquire in message.acquires] == peers


def test_a_label_and_a_wait_out_of_bounds_are_brought_within(holder):
    connect(holder)
    waits = [ask(holder, max_wait=wait, label="\ud800") for wait in (math.inf, math.nan, -math.inf)]

    acquires = holder.take().acquires

    assert [acquire.request_id for acquire in acquires] == [claim.request_id for claim in waits]
    assert [acquire.max_wait.seconds for acquire in acquires] == [366 * 86_400, 366 * 86_400, 0]


def test_leases_that_the_server_drops_are_lost(holder):
    connect(holder)
    claim = hold(holder, 2, 7)
    holder.disconnected()
    connect(holder, 5, epoch=2, resumed=False, dropped=[7])

    assert not holder.is_live(claim)
    assert holder.lease_count == 0
    assert holder.epoch == 2


def test_a_lease_that_ends_at_the_server_is_not_released_again(holder):
    connect(holder)
    claim = hold(holder, 2, 7, 8, resources=("stages/response_create", "accounts/-/streams"))
    holder.received(response(3, ended=[session_pb.EndedLease(lease_id=7, reason=session_pb.END_REASON_OVERHELD)]))
    still_live = holder.is_live(claim)
    holder.release(claim)

    assert not still_live
    assert list(holder.take().releases[0].lease_ids) == [8]


def test_callers_wait_only_so_long_for_a_server_that_is_away(holder, clock):
    claim = ask(holder)
    clock.now += 4.9
    holder.tick()
    settled_early = claim.settled
    clock.now += 0.1
    holder.tick()

    assert not settled_early
    assert isinstance(claim.error, AdmissionUnavailable)


def test_failed_attempts_to_connect_do_not_make_callers_wait_longer(holder, clock):
    claim = ask(holder)
    for _ in range(3):
        holder.hello()
        clock.now += 2
        holder.disconnected()
    holder.tick()

    assert isinstance(claim.error, AdmissionUnavailable)


def test_time_without_an_acknowledgement_counts_as_away(holder, clock):
    connect(holder)
    claim = ask(holder)
    clock.now += 5
    holder.take()
    clock.now += 5
    silent = holder.silent
    holder.disconnected()
    holder.tick()

    assert silent
    assert isinstance(claim.error, AdmissionUnavailable)


def test_an_acquire_given_up_while_away_is_withdrawn_on_the_next_stream(holder, clock):
    connect(holder)
    claim = ask(holder)
    holder.take()
    holder.disconnected()
    clock.now += 5
    holder.tick()

    hello = holder.hello()

    assert [release.request_id for release in hello.releases] == [claim.request_id]
    assert list(hello.acquires) == []


def test_the_rest_of_the_callers_patience_is_sent_with_a_repeated_acquire(holder, clock):
    claim = ask(holder, max_wait=4.0)
    clock.now += 1.5
    hello = holder.hello()

    assert hello.acquires[0].request_id == claim.request_id
    assert hello.acquires[0].max_wait.ToMilliseconds() == 2500


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (pb.Answer(denial=pb.Denial(reason=pb.DENIAL_REASON_PAUSED)), Denied),
        (pb.Answer(failure=pb.Failure(code=3)), AcquireRejected),
        (pb.Answer(failure=pb.Failure(code=14)), AdmissionUnavailable),
    ],
)
def test_refusals_are_types(holder, answer, error):
    connect(holder)
    claim = ask(holder)
    holder.take()
    answer.request_id = claim.request_id
    holder.received(response(2, answers=[answer]))

    assert type(claim.error) is error


def test_a_reason_newer_than_this_client_is_unknown(holder):
    connect(holder)
    claim = ask(holder)
    holder.take()
    answer = pb.Answer(request_id=claim.request_id, denial=pb.Denial())
    answer.denial.MergeFromString(b"\x08\xe7\x07")  # reason = 999
    holder.received(response(2, answers=[answer]))

    assert isinstance(claim.error, Denied)
    assert claim.error.denial.reason is DenialReason.UNKNOWN


def test_closing_says_so_last_and_gives_up_who_waits(holder):
    connect(holder)
    held, waiting = hold(holder, 2, 7), ask(holder)
    holder.take()
    holder.close()

    message = holder.take()

    assert message.close
    assert isinstance(waiting.error, AdmissionUnavailable)
    assert not holder.is_live(held)
    assert holder.take() is None


def test_a_superseded_session_is_over(holder):
    connect(holder)
    held = hold(holder, 2, 7)
    holder.superseded("taken over")
    later = ask(holder)

    assert isinstance(later.error, SessionSuperseded)
    assert not holder.is_live(held)


def test_a_flow_is_a_key_or_a_peer():
    with pytest.raises(ValueError, match="not both"):
        Claim(["lanes/proxy_http"], key_sha256=b"k" * 32, peer="me")
