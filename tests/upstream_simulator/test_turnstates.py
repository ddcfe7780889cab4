from itertools import count

from upstream_simulator.turnstates import TurnStates


def test_a_turn_state_means_something_to_its_account_only():
    foreign = []
    numbers = count(1)
    states = TurnStates(new_id=lambda kind: f"{kind}_{next(numbers)}", on_foreign=lambda: foreign.append(1), most=2)
    mine = states.continued("a", None)

    assert states.continued("a", mine) == mine
    assert foreign == []
    assert states.continued("b", mine) != mine
    assert foreign == [1]


def test_an_unknown_turn_state_is_replaced():
    states = TurnStates(new_id=lambda kind: f"{kind}_1", on_foreign=lambda: None)

    assert states.continued("a", "turn_made_up") == "ts_1"
