import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_api.usage.capacity import remaining
from control_api.usage.served import PoolAccount, codex_usage
from control_api.usage.windows import FIVE_HOURS, MONTH, WEEK, UsageReport, UsageWindow, read_usage

NOW = 1_800_000_000.0
NOTHING = UsageReport()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
window_like = st.dictionaries(
    st.sampled_from(["used_percent", "limit_window_seconds", "reset_at", "reset_after_seconds"]), json_values
)


def payload(**windows):
    return {"plan_type": "plus", "rate_limit": windows}


def test_windows_are_known_by_their_length_whatever_their_position():
    swapped = payload(
        primary_window={"used_percent": 3, "limit_window_seconds": WEEK},
        secondary_window={"used_percent": 12, "limit_window_seconds": FIVE_HOURS},
    )

    report = read_usage(swapped, now=NOW) or NOTHING

    assert [(window.length, window.used_percent) for window in report.windows] == [(FIVE_HOURS, 12.0), (WEEK, 3.0)]


def test_a_lone_month_is_a_month():
    report = read_usage(payload(primary_window={"used_percent": 40, "limit_window_seconds": MONTH}), now=NOW) or NOTHING

    assert [window.length for window in report.windows] == [MONTH]


def test_without_a_length_the_position_says_which_it_is():
    report = (
        read_usage(payload(secondary_window={"used_percent": "7.5", "reset_after_seconds": 60}), now=NOW) or NOTHING
    )

    assert report.windows == (UsageWindow(length=WEEK, used_percent=7.5, resets_at=NOW + 60),)


@given(
    json_values
    | st.fixed_dictionaries(
        {
            "rate_limit": st.dictionaries(
                st.sampled_from(["primary_window", "secondary_window", "monthly_window"]), window_like
            )
        }
    )
)
def test_any_json_is_read_into_sane_numbers_or_nothing(answer):
    report = read_usage(answer, now=NOW)

    for window in report.windows if report else ():
        assert 0.0 <= window.used_percent <= 100.0
        assert window.length >= 1
        assert window.resets_at is None or 0 < window.resets_at < NOW + 1e9


def window(used, length=WEEK, resets_in=1_000.0):
    return UsageWindow(length=length, used_percent=used, resets_at=NOW + resets_in)


@pytest.mark.parametrize(
    ("windows", "left"),
    [
        ([], 7_560.0),
        ([window(50.0)], 3_780.0),
        ([window(50.0), window(100.0, FIVE_HOURS)], 0.0),
        ([window(50.0), window(100.0, FIVE_HOURS, -1.0)], 3_780.0),
        ([window(90.0, resets_in=-1.0)], 7_560.0),
    ],
)
def test_what_is_left_is_what_the_longest_window_leaves(windows, left):
    assert remaining("plus", windows, now=NOW) == left


def test_the_pool_is_shown_as_one_account_with_room_as_long_as_any_has_room():
    pool = [
        PoolAccount(plan="plus", windows=(window(100.0), window(100.0, FIVE_HOURS, 500.0))),
        PoolAccount(plan="plus", windows=(window(20.0), window(0.0, FIVE_HOURS))),
    ]

    shown = codex_usage(pool, now=NOW)
    alone = codex_usage(pool[:1], now=NOW)
    empty = codex_usage([], now=NOW)

    assert shown.rate_limit.allowed
    assert not shown.rate_limit.limit_reached
    told = shown.model_dump()["rate_limit"]
    assert (told["primary_window"]["used_percent"], told["secondary_window"]["used_percent"]) == (50, 60)
    assert told["primary_window"]["reset_after_seconds"] == 500
    assert not alone.rate_limit.allowed
    assert empty.rate_limit.limit_reached
    assert empty.plan_type == "unknown"
