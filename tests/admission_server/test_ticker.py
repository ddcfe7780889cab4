import asyncio
from types import SimpleNamespace

import pytest

from admission_server.delivery import Delivery
from admission_server.metrics import LoopLag
from admission_server.ticker import READ_TURNS, Ticker
from tests.admission_server.bench import LANE, Bench, settings


@pytest.fixture
def late():
    """A session whose time is up, and the ticker that is about to notice."""
    bench = Bench(settings(LANE, 2))
    session = bench.session()
    bench.grant(session, LANE)
    # In steps that are no pause of the process.
    while bench.ledger.now() < session.expires_at + 0.3:
        bench.clock += 0.4
        bench.ledger.tick(read_at=0.0)
    ticker = Ticker(ledger=bench.ledger, delivery=Delivery(bench.ledger, remember=lambda: None), lag=LoopLag())
    return SimpleNamespace(bench=bench, session=session, ticker=ticker)


async def arrive(late, turns):
    """What a message does that has arrived at the socket: some turns of the loop later it is heard."""
    for _ in range(turns):
        await asyncio.sleep(0)
    late.bench.ledger.renew(late.session)


async def test_what_has_arrived_is_read_before_a_session_ends_for_its_silence(late):
    arriving = asyncio.create_task(arrive(late, READ_TURNS - 2))
    await late.ticker.tick()
    await arriving

    assert late.session.over is None
    assert late.bench.held(LANE) == 1


async def test_a_session_from_which_nothing_has_arrived_ends_in_the_same_tick(late):
    await late.ticker.tick()

    assert late.session.over is not None
    assert late.bench.held(LANE) == 0


async def test_a_session_whose_time_comes_while_others_are_read_is_read_itself_first(late):
    other = late.bench.ledger.open("session_other", instance="edge-2/0", role="edge").session
    end = late.bench.ledger.now() + 17.0
    while late.bench.ledger.now() < end - 0.4:
        late.bench.clock += 0.4
        late.bench.ledger.tick(read_at=0.0)

    async def time_goes_by():
        late.bench.clock += 0.45  # while the ticker waits for what has arrived from the first one
        late.bench.ledger.tick(read_at=0.0)
        late.bench.clock += 0.45

    passing = asyncio.create_task(time_goes_by())
    await late.ticker.tick()
    await passing
    first_tick = (late.session.over is None, other.over is None)
    await late.ticker.tick()

    assert first_tick == (False, True)
    assert other.over is not None


async def test_ticks_go_on_while_nobody_is_silent(late):
    late.bench.ledger.renew(late.session)
    running = asyncio.create_task(late.ticker.run())
    waiting = late.bench.ask(late.session, LANE)
    async with asyncio.timeout(10):
        while late.bench.ledger._last_tick != late.bench.clock:
            late.bench.clock += 0.01
            await asyncio.sleep(0.01)
    running.cancel()

    assert late.session.requests[waiting].leases
