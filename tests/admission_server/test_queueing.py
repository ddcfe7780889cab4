import math
from dataclasses import dataclass
from random import Random

import hypothesis.strategies as st
from hypothesis import given

from admission_server.queueing import WINDOW, FairQueue, Turnover, spread


@dataclass(eq=False)
class Asker:
    seq: int
    flow: str


def queue_of(seats, *askers):
    queue: FairQueue[Asker] = FairQueue(seats, set())
    for asker in askers:
        queue.add(asker)
    return queue


def served(queue):
    order = []
    while (head := queue.head()) is not None:
        queue.remove(head)
        order.append(head.seq)
    return order


def test_within_a_flow_the_first_to_come_goes_first():
    queue = queue_of({}, Asker(1, "red"), Asker(2, "red"), Asker(3, "red"))

    assert served(queue) == [1, 2, 3]


def test_the_flow_with_the_fewest_seats_goes_first():
    queue = queue_of({"red": [1, 2], "blue": [1]}, Asker(1, "red"), Asker(2, "blue"), Asker(3, "green"))

    assert served(queue) == [3, 2, 1]


def test_among_equals_the_one_whose_head_came_first_goes_first():
    queue = queue_of({}, Asker(1, "red"), Asker(2, "blue"), Asker(3, "red"))

    assert served(queue) == [1, 2, 3]


def test_who_moves_here_keeps_its_place_in_time():
    queue = queue_of({}, Asker(5, "red"), Asker(6, "red"))
    queue.add(Asker(1, "red"))

    assert served(queue) == [1, 5, 6]


def test_a_flow_that_lost_a_seat_may_go_earlier():
    seats = {"red": [1, 2, 3], "blue": [1, 2]}
    queue = queue_of(seats, Asker(1, "red"), Asker(2, "blue"))
    seats["red"] = []
    queue.touch("red")
    head = queue.head()

    assert head is not None
    assert head.flow == "red"


def test_a_queue_tells_that_it_has_waiters():
    contested: set[FairQueue[Asker]] = set()
    queue = FairQueue({}, contested)
    asker = Asker(1, "red")
    queue.add(asker)
    during = set(contested)
    queue.remove(asker)

    assert during == {queue}
    assert not contested


def test_places_of_those_who_left_do_not_pile_up():
    queue = queue_of({}, Asker(0, "red"))
    for seq in range(1, 10_000):
        asker = Asker(seq, "red")
        queue.add(asker)
        queue.remove(asker)

    assert len(queue._lines["red"]) < 200
    assert len(queue) == 1
    assert queue.is_crowded("red", 1)
    assert not queue.is_crowded("red", 2)


@given(st.lists(st.tuples(st.sampled_from(["add", "leave", "grant", "release"]), st.integers(0, 3)), max_size=80))
def test_the_head_is_always_the_one_that_a_naive_search_finds(steps):
    seats: dict[str, list[int]] = {f"flow-{i}": [] for i in range(4)}
    queue: FairQueue[Asker] = FairQueue(seats, set())
    waiting: list[Asker] = []
    for seq, (what, number) in enumerate(steps):
        flow = f"flow-{number}"
        mine = [asker for asker in waiting if asker.flow == flow]
        if what == "add":
            waiting.append(Asker(seq, flow))
            queue.add(waiting[-1])
        elif what == "leave" and mine:
            waiting.remove(mine[-1])
            queue.remove(mine[-1])
        elif what == "grant":
            seats[flow].append(seq)
        elif what == "release" and seats[flow]:
            seats[flow].pop()
            queue.touch(flow)
        naive = min(
            waiting, key=lambda asker: (len(seats[asker.flow]), _first_of(waiting, asker.flow), asker.seq), default=None
        )

        assert queue.head() is naive
        assert len(queue) == len(waiting)


def _first_of(waiting, flow):
    return min(asker.seq for asker in waiting if asker.flow == flow)


def test_retry_after_follows_from_how_fast_seats_come_back():
    now = 1000.0
    turnover = Turnover(now)
    for _ in range(20):
        turnover.released(now)
    # 20 releases in the two windows that end now: one a second; ten are ahead.
    seconds = [
        turnover.retry_after(waiting=9, limit=5, now=now + WINDOW - 1e-9, random=Random(seed)) for seed in range(200)
    ]

    assert min(seconds) >= 10
    assert max(seconds) <= 16
    assert len(set(seconds)) > 3


def test_those_who_were_refused_lately_are_expected_back_first():
    turnover = Turnover(0.0)
    alone = turnover.retry_after(waiting=0, limit=10, now=1.0, random=Random(1))
    for _ in range(30):
        turnover.refused(1.0)
    crowd = turnover.retry_after(waiting=0, limit=10, now=1.0, random=Random(1))

    assert crowd > alone


def test_old_windows_are_forgotten():
    turnover = Turnover(0.0)
    for _ in range(1000):
        turnover.refused(1.0)
    later = turnover.retry_after(waiting=0, limit=30, now=1.0 + 3 * WINDOW, random=Random(1))

    assert later <= 3


@given(st.floats(0, 1e9), st.integers())
def test_a_spread_is_whole_seconds_from_1_to_32(seconds, seed):
    drawn = spread(seconds, Random(seed))

    assert 1 <= drawn <= 32
    assert drawn == math.floor(drawn)
