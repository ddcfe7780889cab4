import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission_server.decisions import AccountNeeds, HeldLease, HeldList
from admission_server.lease_pages import PASSED_OVER_AT_ONCE, BadToken, LeaseQuery, Place
from admission_server.ledger import Terms
from tests.admission_server.bench import LANE, STAGE, STREAMS, Bench, account, settings

QUERIES = (
    LeaseQuery(),
    LeaseQuery(resource=LANE),
    LeaseQuery(session_id="session_edge-2/0"),
    LeaseQuery(resource=LANE, session_id="session_edge-2/0"),
    LeaseQuery(account_id="acc_1"),
    LeaseQuery(resource=STAGE, account_id="acc_1"),
)


def bench_of(**terms):
    resources = (settings(LANE, 0), settings(STAGE, 0), settings(STREAMS, 0))
    return Bench(*resources, accounts=(account("acc_1"), account("acc_2")), terms=Terms(**terms))


def page_of(bench, query, token, size):
    """One page as the servicer takes it: its leases, and the token of the next."""
    found = []
    for lease in query.scan(bench.ledger, query.read_token(token)):
        if lease is not None:
            found.append(lease)
            if len(found) > size:
                return found[:size], query.token_after(found[size - 1])
    return found, ""


def leases_of(bench, query):
    """What a query asks for, found the dull way."""
    every = [lease for session in bench.ledger.sessions.values() for lease in session.leases.values()]
    return {
        lease.lease_id
        for lease in every
        if query.resource in ("", lease.resource.name)
        and query.session_id in ("", lease.session.session_id)
        and query.account_id in ("", lease.grant.account_id)
    }


@given(data=st.data(), size=st.integers(1, 4), query=st.sampled_from(QUERIES))
def test_a_lease_that_stays_is_shown_once_whatever_comes_and_goes_between_two_pages(data, size, query):
    bench = bench_of()
    sessions = [bench.session(f"edge-{i}/0") for i in range(3)]
    grants = []
    claims = iter(range(1, 1_000))

    def change():
        match data.draw(st.sampled_from(("lane", "turn", "release", "claim", "end"))):
            case "lane":
                grants.append(bench.grant(data.draw(st.sampled_from(sessions)), LANE))
            case "turn":
                session = data.draw(st.sampled_from(sessions))
                grants.append(bench.grant(session, STAGE, STREAMS, needs=AccountNeeds()))
            case "release" if grants:
                bench.ledger.release(
                    data.draw(st.sampled_from(sessions)),
                    [grants.pop(data.draw(st.integers(0, len(grants) - 1))).leases[0].lease_id],
                )
            case "claim":
                held = HeldLease(lease_id=next(claims), resource=LANE, request_id="", age=1.0)
                name = f"old-{held.lease_id}"
                held_list = HeldList(seen=0, leases=(held,))
                bench.ledger.open(f"session_{name}", instance=name, role="edge", held=held_list, epoch=2)
            case "end" if data.draw(st.integers(0, 9)) == 0:
                bench.ledger.close(data.draw(st.sampled_from(sessions)))
                sessions[:] = [session for session in sessions if session.over is None] or [bench.session("edge-9/0")]

    for _ in range(data.draw(st.integers(0, 25))):
        change()
    always = leases_of(bench, query)
    shown, token, pages = [], "", 0
    while token or not pages:
        page, token = page_of(bench, query, token, size)
        shown += [lease.lease_id for lease in page]
        pages += 1
        if pages < 20:
            for _ in range(data.draw(st.integers(0, 3))):
                change()
        always &= leases_of(bench, query)

    assert len(shown) == len(set(shown))
    assert always <= set(shown)


@pytest.mark.parametrize("query", QUERIES)
def test_without_changes_the_pages_are_what_was_asked_for(query):
    bench = bench_of()
    for i in range(30):
        session = bench.ledger.sessions.get(f"session_edge-{i % 3}/0") or bench.session(f"edge-{i % 3}/0")
        bench.grant(session, LANE)
        bench.grant(session, STAGE, STREAMS, needs=AccountNeeds())
    shown, token = [], ""
    for _ in range(100):
        page, token = page_of(bench, query, token, 7)
        shown += [lease.lease_id for lease in page]
        if not token:
            break

    assert set(shown) == leases_of(bench, query)
    assert len(shown) == len(set(shown))


def test_a_page_begins_where_the_last_one_ended_without_passing_over_what_was_shown():
    bench = bench_of(session_leases=30_000)
    session = bench.session()
    granted = [bench.grant(session, LANE).leases[0] for _ in range(3 * PASSED_OVER_AT_ONCE)]
    query = LeaseQuery()
    steps = query.scan(bench.ledger, query.place_of(granted[-2]))

    assert list(steps) == [granted[-1]]


def test_a_filter_that_matches_nothing_lets_others_go_first_now_and_then():
    bench = bench_of(session_leases=30_000)
    session = bench.session()
    for _ in range(3 * PASSED_OVER_AT_ONCE):
        bench.grant(session, LANE)

    assert list(LeaseQuery(account_id="acc_1").scan(bench.ledger, Place())) == [None] * 3


def test_what_ends_while_others_go_first_is_not_shown():
    bench = bench_of(session_leases=30_000)
    session = bench.session()
    for _ in range(PASSED_OVER_AT_ONCE):
        bench.grant(session, LANE)
    turn = bench.grant(session, STREAMS, needs=AccountNeeds())
    steps = LeaseQuery(account_id=turn.account_id).scan(bench.ledger, Place())
    first = next(steps)
    bench.release(session, turn)

    assert (first, list(steps)) == (None, [])


def test_a_token_belongs_to_the_filters_that_it_was_made_with():
    bench = bench_of()
    lease = bench.grant(bench.session(), LANE).leases[0]
    token = LeaseQuery(resource=LANE).token_after(lease)

    assert LeaseQuery(resource=LANE).read_token(token) == Place("", lease.lease_id)
    with pytest.raises(BadToken, match="other filters"):
        LeaseQuery(resource=STAGE).read_token(token)


@given(st.text(max_size=60))
def test_any_other_text_is_no_token(text):
    if text:
        with pytest.raises(BadToken):
            LeaseQuery().read_token(text)
