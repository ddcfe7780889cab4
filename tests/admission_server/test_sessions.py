import pytest

from admission_server.decisions import Denied, EndReason
from admission_server.resources import Granted
from admission_server.sessions import ANSWERS_A_MESSAGE, REMEMBERED, Buckets, Session, splitmix64
from tests.admission_server.bench import LANE, Bench, settings


@pytest.mark.parametrize(
    ("value", "mixed"),
    [(0, 0xE220A8397B1DCDAF), (1, 0x910A2DEC89025CC1), (2**64 - 1, 0xE4D971771B652C20)],
)
def test_splitmix64_has_its_known_values(value, mixed):
    assert splitmix64(value) == mixed


def test_a_renewed_session_is_not_due():
    buckets = Buckets(width=0.25)
    one, two = Session("one", "edge-1/0", "edge", 0.0), Session("two", "edge-2/0", "edge", 0.0)
    buckets.put(one, 10.0)
    buckets.put(two, 10.0)
    buckets.put(one, 15.0)

    assert buckets.due(9.9) == []
    assert buckets.due(10.5) == [two]
    buckets.remove(two)
    assert buckets.due(10.5) == []
    assert buckets.due(15.5) == [one]


def test_messages_are_numbered_and_carry_a_bounded_number_of_answers():
    bench = Bench(settings(LANE, 0))
    session = bench.session()
    for _ in range(ANSWERS_A_MESSAGE + 1):
        bench.ask(session, LANE)
    first = session.take_mail()
    more = session.has_mail
    second = session.take_mail()

    assert (first.number, len(first.answers)) == (1, ANSWERS_A_MESSAGE)
    assert more
    assert (second.number, len(second.answers)) == (2, 1)
    assert not session.has_mail


def test_answers_and_endings_that_a_broken_stream_lost_are_sent_again():
    bench = Bench(settings(LANE, 1, max_hold=5.0))
    session = bench.session()
    bench.ask(session, LANE, request_id="granted")
    bench.ask(session, LANE, request_id="denied")
    lost = session.take_mail()
    bench.wait(7.0)
    also_lost = session.take_mail()
    session.resend_after(0)
    again = session.take_mail()

    assert {answer.request_id for answer in lost.answers} == {"granted", "denied"}
    assert [reason for _, reason in also_lost.ended] == [EndReason.OVERHELD]
    assert again.ended == also_lost.ended
    assert [type(answer) for answer in again.answers] == [Denied]


def test_what_was_seen_is_not_sent_again():
    bench = Bench(settings(LANE, 5))
    session = bench.session()
    bench.ask(session, LANE)
    seen = session.take_mail().number
    bench.ask(session, LANE, request_id="late")
    session.take_mail()
    session.acknowledge(seen)
    session.resend_after(seen)

    assert [answer.request_id for answer in session.take_mail().answers] == ["late"]


def test_a_grant_whose_seats_are_gone_is_forgotten_with_them():
    bench = Bench(settings(LANE, 5))
    session = bench.session()
    granted = bench.grant(session, LANE, request_id="once")
    remembered = session.requests["once"]
    bench.release(session, granted)

    assert isinstance(remembered, Granted)
    assert not session.requests
    assert not session.unseen


def test_withdrawals_are_remembered_up_to_a_bound():
    session = Session("one", "edge-1/0", "edge", 0.0)
    for i in range(REMEMBERED + 5):
        session.remember_withdrawal(f"r{i}")

    assert len(session.requests) == REMEMBERED
    assert "r4" not in session.requests
    assert "r5" in session.requests


def test_a_holder_cannot_confirm_what_was_never_sent():
    bench = Bench(settings(LANE, 5))
    session = bench.session()
    bench.ask(session, LANE)
    session.acknowledge(10**9)

    assert session.seen == 0
    assert session.known_count == 0
