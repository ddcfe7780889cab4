from upstream_simulator.usage import Usage


def test_turns_use_a_window_up_but_never_fill_it():
    usage = Usage.of_new_account(plan="plus", now=0)
    usage.count(tokens=10_000_000, now=1)
    some = usage.primary.used_percent
    for _ in range(100):
        usage.count(tokens=1_000_000, now=1)

    assert some > 4
    assert usage.primary.used_percent < 100


def test_a_window_begins_anew_when_its_time_is_over():
    usage = Usage.of_new_account(plan="plus", now=0)
    usage.primary.used_percent = 100
    full = usage.as_payload(now=1)["rate_limit"]
    anew = usage.as_payload(now=12_000)["rate_limit"]

    assert (full["allowed"], full["limit_reached"]) == (False, True)
    assert (anew["allowed"], anew["primary_window"]["used_percent"]) == (True, 0)
    assert anew["primary_window"]["reset_at"] == 12_000 + 18_000


def test_headers_event_and_payload_tell_the_same():
    usage = Usage.of_new_account(plan="plus", now=0)
    headers = usage.as_headers(1)
    event = usage.as_event(1)["rate_limits"]["primary"]
    window = usage.as_payload(1)["rate_limit"]["primary_window"]

    assert float(headers["x-codex-primary-used-percent"]) == event["used_percent"] == window["used_percent"]
    assert int(headers["x-codex-primary-reset-at"]) == event["reset_at"] == window["reset_at"]
    assert int(headers["x-codex-primary-window-minutes"]) * 60 == window["limit_window_seconds"] == 18_000
