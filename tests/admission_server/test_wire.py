import contextlib

import hypothesis.strategies as st
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import control_service_pb2 as control_pb
from google.protobuf.message import DecodeError
from hypothesis import given, settings

from admission_server import wire
from admission_server.accounts import Outcome
from admission_server.decisions import SENTENCES, Acquire, EndReason, Reason
from admission_server.errors import STATUS, CallError, Malformed, wire_error
from admission_server.policy import Status
from tests.admission_server.bench import LANE, STAGE, STREAMS, Bench, account, key
from tests.admission_server.bench import settings as resource

TEXT = st.text(max_size=140)
NAMES = st.sampled_from([LANE, STAGE, STREAMS, "keys/-/streams", "accounts/one/streams", "lanes/", "", "x" * 300])
NEEDS = st.builds(
    pb.AccountNeeds,
    model=TEXT,
    kind=st.integers(0, 5),
    affinity_keys=st.lists(TEXT, max_size=6),
    preferred_owner_key=TEXT,
    required_owner_key=TEXT,
    required_account_id=st.sampled_from(["", "one", "gone"]),
    avoid_account_ids=st.lists(st.sampled_from(["one", "two", "gone"]), max_size=10),
    newer_than_credential_version=st.integers(0, 2**64 - 1),
    reattach=st.booleans(),
)
ACQUIRES = st.one_of(
    st.builds(pb.Acquire, request_id=TEXT, resources=st.lists(NAMES, max_size=10), account=NEEDS, peer=TEXT),
    st.builds(pb.Acquire, request_id=TEXT, resources=st.lists(NAMES, max_size=3), key_sha256=st.binary(max_size=40)),
)


@given(st.lists(ACQUIRES, max_size=20))
@settings(max_examples=150, deadline=None)
def test_whatever_a_client_asks_for_is_answered_or_waits(messages):
    bench = Bench(
        resource(LANE, 2), resource(STAGE, 2, max_wait=1.0), resource(STREAMS, 1, max_wait=1.0),
        accounts=(account("one"), account("two", kind="api_key")), keys=(key("red"),),
    )  # fmt: skip
    session = bench.session()
    for message in messages:
        with contextlib.suppress(Malformed):
            bench.ledger.acquire(session, wire.acquire_from(message))
    bench.wait(1.3)
    mail = session.take_mail()
    written = [wire.answer_of(answer, with_credential=True) for answer in mail.answers]

    assert bench.ledger.waiting == 0
    assert all(answer.WhichOneof("result") for answer in written)


@given(
    st.binary(max_size=200),
    st.sampled_from([(session_pb.Hello, wire.hello_from), (session_pb.Heartbeat, wire.heartbeat_from)]),
)
def test_bytes_that_parse_as_a_hello_or_heartbeat_are_read_or_refused_by_field(data, kind_and_reader):
    kind, read = kind_and_reader
    try:
        message = kind.FromString(data)
    except DecodeError:
        return

    assert _field_that_is_wrong(read, message) != ""


def _field_that_is_wrong(read, message):
    try:
        read(message)
    except Malformed as error:
        return error.field
    return None


def test_an_acquire_is_read_whole():
    message = pb.Acquire(
        request_id="r1", resources=[STAGE, STREAMS], peer="10.0.0.1", account=pb.AccountNeeds(model="m")
    )
    message.max_wait.FromMilliseconds(1500)
    acquire = wire.acquire_from(message)

    assert isinstance(acquire, Acquire)
    assert (acquire.request_id, acquire.resources, acquire.peer) == ("r1", (STAGE, STREAMS), "10.0.0.1")
    assert (acquire.max_wait, acquire.key_sha256) == (1.5, b"")
    assert acquire.needs is not None
    assert acquire.needs.model == "m"


def test_names_of_the_core_are_those_of_the_contract():
    def names(enum, prefix):
        return {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # noqa: SIM118  # no dict

    assert {reason.name for reason in Reason} == names(pb.DenialReason, "DENIAL_REASON_")
    assert {outcome.name for outcome in Outcome} - {"UNSPECIFIED"} == names(pb.Outcome, "OUTCOME_")
    assert {ending.name for ending in EndReason} == names(session_pb.EndReason, "END_REASON_")
    assert {status.name for status in Status} == names(control_pb.AccountStatus, "ACCOUNT_STATUS_")


def test_every_reason_has_a_sentence():
    assert set(SENTENCES) == set(Reason)


@pytest.mark.parametrize("error", CallError.__subclasses__())
def test_every_error_has_a_status_and_says_its_reason(error):
    sent = wire_error(error("what happened", field="some.field", retry_after=1.5))

    assert sent.code is STATUS[error]
    assert sent.message == "some.field: what happened"
    assert error.reason.encode() in sent.trailing_metadata[0][1]


def test_a_duration_keeps_its_fraction():
    assert wire.seconds(wire.duration(12.25)) == 12.25


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("-inf"), float("nan")])
def test_a_duration_can_always_be_written(value):
    written = wire.duration(value)

    assert abs(written.seconds) == wire.LONGEST
    assert abs(wire.seconds(written)) == wire.LONGEST
