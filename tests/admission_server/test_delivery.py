from structlog.testing import capture_logs

from admission_server.delivery import Delivery, Stream
from admission_server.errors import SessionEndedByServer, SessionSuperseded
from admission_server.ledger import Terms
from tests.admission_server.bench import LANE, STAGE, Bench, settings


def delivery_of(bench):
    remembered = []
    return Delivery(bench.ledger, remember=lambda: remembered.append(set(bench.ledger.sessions))), remembered


async def test_a_denial_is_one_line_with_who_refused_and_why():
    bench = Bench(settings(LANE, 1))
    delivery, _ = delivery_of(bench)
    session = bench.session()
    bench.grant(session, LANE)
    bench.refuse(session, LANE, request_id="turn-7")
    with capture_logs() as logs:
        delivery.deliver()

    (line,) = [entry for entry in logs if entry["event"] == "acquire denied"]
    assert (line["request_id"], line["reason"], line["resource"]) == ("turn-7", "lane_full", LANE)
    assert (line["limit"], line["held"], line["waiters"]) == (1, 1, 0)


async def test_a_denial_that_repeats_is_counted_and_told_once_a_second():
    bench = Bench(settings(LANE, 1), settings(STAGE, 1))
    delivery, _ = delivery_of(bench)
    session = bench.session()
    bench.grant(session, LANE)
    bench.grant(session, STAGE)
    with capture_logs() as logs:
        for _ in range(50):
            bench.refuse(session, LANE)
            delivery.deliver()
        bench.refuse(session, STAGE)
        delivery.deliver()
        bench.wait(1.1)
        bench.refuse(session, LANE)
        delivery.deliver()

    told = [(entry["resource"], entry["repeated"]) for entry in logs if entry["event"] == "acquire denied"]
    assert told == [(LANE, 0), (STAGE, 0), (LANE, 49)]


async def test_the_end_of_a_session_says_how_many_seats_came_back_and_is_remembered():
    bench = Bench(settings(LANE, 5))
    delivery, remembered = delivery_of(bench)
    session = bench.session()
    for _ in range(3):
        bench.grant(session, LANE)
    stream = Stream(session)
    delivery.attach(stream)
    bench.wait(18.0)
    with capture_logs() as logs:
        delivery.deliver()

    (line,) = [entry for entry in logs if entry["event"] == "session ended"]
    assert (line["reason"], line["reclaimed"], line["log_level"]) == ("expired", 3, "warning")
    assert isinstance(stream.closed_by, SessionEndedByServer)
    assert remembered == [set()]


async def test_a_superseded_stream_ends_with_an_error_of_its_own():
    bench = Bench(settings(LANE, 5))
    delivery, _ = delivery_of(bench)
    stream = Stream(bench.session(session_id="old_session"))
    delivery.attach(stream)
    bench.session(session_id="new_session")
    delivery.deliver()

    assert stream.finished
    assert isinstance(stream.closed_by, SessionSuperseded)


async def test_a_session_that_closed_in_order_is_no_warning_and_its_stream_no_error():
    bench = Bench(settings(LANE, 5))
    delivery, _ = delivery_of(bench)
    session = bench.session()
    stream = Stream(session)
    delivery.attach(stream)
    bench.ledger.close(session)
    with capture_logs() as logs:
        delivery.deliver()

    assert [entry["log_level"] for entry in logs] == ["info"]
    assert stream.finished
    assert stream.closed_by is None


async def test_heartbeats_that_pile_up_are_acknowledged_by_the_last():
    bench = Bench(settings(LANE, 5))
    stream = Stream(bench.session())
    stream.acknowledge(1, (11,))
    stream.acknowledge(2, (12,))

    assert stream.ack == (2, (11, 12))
    assert stream.wake.is_set()


async def test_a_missing_session_that_is_given_up_is_remembered_no_more():
    bench = Bench(settings(LANE, 5))
    delivery, remembered = delivery_of(bench)
    bench.ledger.recovering |= {"session_1": "edge-1/0", "session_2": "edge-2/0"}
    by_hand = bench.ledger.forget("session_1")
    delivery.deliver()
    after_one = len(remembered)
    bench.wait(Terms().ttl + Terms().grace + 0.1)
    delivery.deliver()

    assert (by_hand, after_one, len(remembered)) == (0, 1, 2)
    assert not bench.ledger.recovering
