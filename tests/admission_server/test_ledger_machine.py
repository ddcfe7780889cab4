"""The ledger against a naive model, with Hypothesis choosing what happens. The rules are judged after each step."""

from random import Random

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from admission_server.accounts import Outcome
from admission_server.selection import Pool
from tests.admission_server.world import KEYS, SHAPES, STEPS, World, play

HOLDERS = st.integers(0, 2)
FLOWS = st.sampled_from((*KEYS, "peer"))


class LedgerMachine(RuleBasedStateMachine):
    """Holders that ask, release, lose mail, die and come back; time, pauses, restarts and changes of policy."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(index=HOLDERS, shape=st.sampled_from(SHAPES), flow=FLOWS)
    def acquire(self, index, shape, flow):
        self.world.acquire(self.world.holders[index], shape, flow)

    @rule(index=HOLDERS)
    def acquire_mixed(self, index):
        self.world.acquire_mixed(self.world.holders[index])

    @rule(index=HOLDERS)
    def repeat(self, index):
        self.world.repeat(self.world.holders[index])

    @rule(index=HOLDERS, before_it_came=st.booleans())
    def withdraw(self, index, before_it_came):
        self.world.withdraw(self.world.holders[index], before_it_came=before_it_came)

    @rule(index=HOLDERS, twice=st.booleans())
    def release(self, index, twice):
        self.world.release(self.world.holders[index], twice=twice)

    @rule(index=HOLDERS)
    def beat(self, index):
        self.world.beat(self.world.holders[index])

    @rule(index=HOLDERS)
    def send(self, index):
        self.world.send(self.world.holders[index])

    @rule(index=HOLDERS)
    def arrive(self, index):
        self.world.arrive(self.world.holders[index])

    @rule(index=HOLDERS)
    def deliver(self, index):
        self.world.deliver(self.world.holders[index])

    @rule(index=HOLDERS)
    def lose(self, index):
        self.world.lose(self.world.holders[index])

    @rule(index=HOLDERS)
    def connect(self, index):
        self.world.connect(self.world.holders[index])

    @rule(index=HOLDERS)
    def die(self, index):
        self.world.die(index)

    @rule(index=HOLDERS)
    def close(self, index):
        self.world.close(index)

    @rule(index=HOLDERS)
    def forget(self, index):
        self.world.forget(self.world.holders[index])

    @rule(account_id=st.sampled_from(("one", "two")), outcome=st.sampled_from(Outcome))
    def report(self, account_id, outcome):
        self.world.report(account_id, outcome)

    @rule(seconds=st.floats(0.1, 9.0))
    def wait(self, seconds):
        self.world.wait(seconds)

    @rule(seconds=st.floats(0.2, 60.0))
    def pause(self, seconds):
        self.world.pause(seconds)

    @rule(name=st.sampled_from(("lanes/proxy_http", "stages/response_create", "accounts/-/streams")),
          limit=st.integers(0, 3), paused=st.booleans())  # fmt: skip
    def push(self, name, limit, paused):
        self.world.push(name=name, limit=limit, paused=paused)

    @rule(account_id=st.sampled_from(("one", "two")), has_token=st.booleans())
    def change_account(self, account_id, has_token):
        self.world.change_account(account_id, has_token=has_token)

    @rule(policy_first=st.booleans())
    def restart(self, policy_first):
        self.world.restart(policy_first=policy_first)

    @invariant()
    def the_books_are_in_order(self):
        self.world.check()


LedgerMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedger = LedgerMachine.TestCase


def test_seeded_games_break_no_rule():
    for seed in range(150):
        play(seed, steps=100)


def test_the_games_make_turns_wait_that_avoid_accounts_are_bound_to_one_and_have_none_to_go_to():
    kinds = set()
    for seed in range(60):
        dice = Random(seed)
        world = World(seed)
        weights = [weight for weight, _ in STEPS]
        for _ in range(100):
            _, step = dice.choices(STEPS, weights)[0]
            step(world, dice.randrange(len(world.holders)), dice)
            for session in world.ledger.sessions.values():
                for waiter in session.waiting.values():
                    if waiter.acquire.needs is not None and waiter.at is not None:
                        kinds.add(_kind_of(waiter))

    assert kinds >= {"avoids one", "is bound", "takes any", "waits where nobody serves"}


def _kind_of(waiter):
    if isinstance(waiter.at, Pool) and not waiter.at.is_served(frozenset()):
        return "waits where nobody serves"
    if waiter.acquire.needs.required_account_id:
        return "is bound"
    return "avoids one" if waiter.acquire.needs.avoid_account_ids else "takes any"
