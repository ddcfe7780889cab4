import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admission_client.lease import TokenUsage
from admission_client.policy import KeySignal
from control_api.cumulative import MOST
from control_api.errors import NotFound
from control_api.keys.models import KeyInput
from control_api.keys.usage import KeyUsageService


@pytest.fixture
async def usage(parts):
    return KeyUsageService(database=parts.database, now=parts.clock)


@pytest.fixture
async def key_id(parts):
    row, _ = await parts.keys.create(KeyInput(name="laptop"))
    return row.id


def told(key_id, succeeded, *, epoch=1, tokens=None):
    tokens = 10 * succeeded if tokens is None else tokens
    return KeySignal(
        epoch=epoch,
        sequence=1,
        key_id=key_id,
        succeeded=succeeded,
        failed=0,
        usage=TokenUsage(
            input_tokens=tokens, cached_input_tokens=tokens // 2, output_tokens=tokens, reasoning_tokens=tokens // 5
        ),
    )


async def test_a_key_that_was_never_used_has_used_nothing(usage, key_id):
    counts = await usage.of(key_id)

    assert (counts.told_at, counts.succeeded, counts.input_tokens) == (None, 0, 0)
    with pytest.raises(NotFound):
        await usage.of("key_nobody")


async def test_counts_that_are_told_again_count_once_and_another_epoch_begins_anew(usage, key_id, parts):
    for signal in (told(key_id, 2), told(key_id, 2), told(key_id, 5), told(key_id, 1, epoch=2)):
        await usage.receive([signal])
    counts = await usage.of(key_id)

    assert counts.told_at == parts.clock.now
    assert (counts.succeeded, counts.input_tokens, counts.output_tokens) == (6, 60, 60)
    assert (counts.cached_input_tokens, counts.reasoning_tokens) == (30, 12)


async def test_a_key_that_is_not_here_stops_nobody_elses_counts(usage, key_id):
    await usage.receive([told("key_of_another_life", 3), told(key_id, 1)])

    assert (await usage.of(key_id)).succeeded == 1


async def test_counts_that_no_database_holds_stop_nobody_elses(usage, key_id, parts):
    other, _ = await parts.keys.create(KeyInput(name="other"))
    await usage.receive([told(key_id, 1, tokens=2**64 - 1), told(other.id, 1)])
    await usage.receive([told(key_id, 1, epoch=2, tokens=2**64 - 1)])

    assert (await usage.of(key_id)).input_tokens == MOST
    assert (await usage.of(other.id)).succeeded == 1


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(epochs=st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=4), repeats=st.integers(1, 3))
async def test_whatever_is_repeated_the_total_is_what_was_used(usage, parts, epochs, repeats):
    row, _ = await parts.keys.create(KeyInput(name="any"))
    for epoch, uses in enumerate(epochs, start=1):
        counted = 0
        for used in uses:
            counted += used
            for _ in range(repeats):
                await usage.receive([told(row.id, counted, epoch=epoch)])

    assert (await usage.of(row.id)).succeeded == sum(map(sum, epochs))
