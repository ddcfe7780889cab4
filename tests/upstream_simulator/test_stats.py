import json

from upstream_simulator.stats import Stats, fingerprint


class Monotonic:
    now = 0.0

    def __call__(self):
        return self.now


def test_streams_are_counted_now_at_most_and_in_seconds():
    time = Monotonic()
    stats = Stats(time)
    with stats.stream("a"):
        time.now = 2.0
        with stats.stream("a"):
            time.now = 3.0
            inside = stats.as_dict()["streams"]["a"]
    outside = stats.as_dict()["streams"]["a"]

    assert inside == {"now": 2, "most": 2, "total": 2, "seconds": 4.0}
    assert outside == {"now": 0, "most": 2, "total": 2, "seconds": 4.0}


def test_forgetting_keeps_what_runs():
    time = Monotonic()
    stats = Stats(time)
    with stats.stream("runs"), stats.socket("runs"):
        with stats.stream("done"):
            time.now = 1.0
        stats.forget()
        time.now = 1.5

        assert stats.as_dict()["streams"] == {"runs": {"now": 1, "most": 1, "total": 1, "seconds": 0.5}}


def test_exchanges_are_counted_by_token_without_telling_it():
    stats = Stats(Monotonic())
    stats.exchange("rt_secret", granted=True)
    stats.exchange("rt_secret", granted=False)
    shown = stats.as_dict()

    assert shown["refresh_exchanges"] == {fingerprint("rt_secret"): {"attempts": 2, "granted": 1}}
    assert "rt_secret" not in json.dumps(shown)


def test_the_latest_turns_are_kept_without_their_secrets_and_without_huge_bodies():
    stats = Stats(Monotonic())
    headers = {"Authorization": "Bearer sk-1234567890", "X-Trace": "t"}
    for size in (10, 10_000_000):
        stats.turn(account="a", transport="http", path="/", headers=headers, body={"n": size}, size=size)
    for number in range(200):
        stats.request(f"GET /{number}", "200")
    small, huge = stats.as_dict()["turns"]

    assert small["headers"] == {"authorization": f"Bearer sha256:{fingerprint('sk-1234567890')}", "x-trace": "t"}
    assert (small["body"], huge["body"]) == ({"n": 10}, None)


def test_many_paths_are_counted_together():
    stats = Stats(Monotonic())
    for number in range(250):
        stats.request(f"GET /{number}", "404")
    requests = stats.as_dict()["requests"]

    assert len(requests) == 201
    assert requests["(others)"] == {"404": 50}
