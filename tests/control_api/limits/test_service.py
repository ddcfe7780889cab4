import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_api.errors import InputRefused
from control_api.limits.models import DEFAULTS, LimitsPatch
from control_api.limits.service import LimitService, check, merged, patched


def patch(**body):
    return LimitsPatch.model_validate(body)


def limit(name, **fields):
    return patch(resources={name: fields})


def test_the_defaults_are_those_of_the_design():
    limits = merged({}, {}).resources

    assert {name: settings.limit for name, settings in limits.items()} == {
        "lanes/proxy_http": 200,
        "lanes/proxy_websocket": 200,
        "lanes/proxy_compact": 16,
        "lanes/dashboard": 50,
        "stages/token_refresh": 32,
        "stages/upstream_websocket_connect": 64,
        "stages/response_create": 64,
        "stages/compact_response_create": 16,
        "accounts/-/streams": 8,
        "accounts/-/response_creates": 4,
        "keys/-/streams": 0,
    }
    check(merged({}, {}))


def test_an_explicit_zero_in_the_environment_is_kept_as_zero():
    assert merged({}, {"lanes/proxy_http": 0}).resources["lanes/proxy_http"].limit == 0


def test_what_was_changed_wins_over_the_environment_and_null_goes_back_to_it():
    seeds = {"lanes/proxy_http": 100}
    changed = patched({}, limit("lanes/proxy_http", limit=7))
    back = patched(changed, limit("lanes/proxy_http", limit=None))

    assert merged(changed, seeds).resources["lanes/proxy_http"].limit == 7
    assert merged(back, seeds).resources["lanes/proxy_http"].limit == 100


def test_null_for_a_resource_takes_all_of_its_changes_back():
    changed = patched({}, limit("stages/response_create", limit=7, max_wait=1.0))

    back = patched(changed, patch(resources={"stages/response_create": None}))

    assert merged(back, {}).resources["stages/response_create"] == DEFAULTS["stages/response_create"]


def test_the_default_reserve_never_swallows_a_small_limit():
    limits = merged(patched({}, limit("accounts/-/streams", limit=1)), {})

    assert limits.resources["accounts/-/streams"].reserve == 0
    check(limits)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"resources": {"lanes/nowhere": {"limit": 1}}}, "resources.lanes/nowhere"),
        ({"resources": {"accounts/-/streams": {"limit": 2, "reserve": 2}}}, "resources.accounts/-/streams.reserve"),
        ({"resources": {"lanes/proxy_http": {"reserve": 1}}}, "resources.lanes/proxy_http.reserve"),
        ({"resources": {"lanes/dashboard": {"paused": True}}}, "resources.lanes/dashboard.paused"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_field(body, field):
    with pytest.raises(InputRefused) as refused:
        check(merged(patched({}, patch(**body)), {}))

    assert refused.value.field == field


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.integers(0, 10_000)))
def test_any_limits_go_together(wanted):
    changed = patched({}, patch(resources={name: {"limit": seats} for name, seats in wanted.items()}))

    limits = merged(changed, {})

    check(limits)
    assert all(limits.resources[name].limit == seats for name, seats in wanted.items())


async def test_a_refused_change_changes_nothing_and_a_stored_one_is_there_after_a_restart(parts):
    both = patch(resources={"lanes/proxy_http": {"limit": 5}, "lanes/nowhere": {"limit": 1}})
    with pytest.raises(InputRefused):
        await parts.limits.patch(both)
    untouched = parts.limits.view().resources["lanes/proxy_http"]
    await parts.limits.patch(patch(resources={"lanes/proxy_http": {"limit": 6}}, fair_share_threshold_percent=0))

    restarted = LimitService(database=parts.database, changes=parts.changes, seeds={"lanes/proxy_compact": 9})
    await restarted.load()
    view = restarted.view()

    assert (untouched.limit, untouched.sources["limit"]) == (200, "default")
    assert (view.resources["lanes/proxy_http"].limit, view.resources["lanes/proxy_http"].sources["limit"]) == (
        6,
        "changed",
    )
    assert view.resources["lanes/proxy_compact"].sources["limit"] == "environment"
    assert (view.fair_share_threshold_percent, view.sources["fair_share_threshold_percent"]) == (0, "changed")


def limits_of(parts):
    return {name: settings.limit for name, settings in parts.limits.current.resources.items()}


async def test_changes_at_once_are_all_kept(parts):
    wanted = {"lanes/proxy_http": 7, "lanes/proxy_compact": 3, "stages/token_refresh": 5}

    await asyncio.gather(*(parts.limits.patch(limit(name, limit=seats)) for name, seats in wanted.items()))

    assert limits_of(parts).items() >= wanted.items()


async def test_a_refused_change_takes_back_its_own_values_only(parts):
    await parts.limits.patch(limit("lanes/proxy_http", limit=9))
    refused = await parts.limits.patch(
        patch(resources={"lanes/proxy_http": {"limit": 10}, "lanes/proxy_compact": {"limit": 4}})
    )
    await parts.limits.patch(patch(resources={"lanes/proxy_compact": {"limit": 5}, "keys/-/streams": {"limit": 6}}))

    await parts.limits.restore(refused)

    now = limits_of(parts)
    assert (now["lanes/proxy_http"], now["lanes/proxy_compact"], now["keys/-/streams"]) == (9, 5, 6)


async def test_a_later_change_that_leans_on_a_refused_one_goes_with_it(parts):
    refused = await parts.limits.patch(limit("accounts/-/streams", limit=20))
    await parts.limits.patch(limit("accounts/-/streams", reserve=15))

    await parts.limits.restore(refused)

    streams = parts.limits.current.resources["accounts/-/streams"]
    assert (streams.limit, streams.reserve) == (8, DEFAULTS["accounts/-/streams"].reserve)
