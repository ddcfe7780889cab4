import pytest

from upstream_simulator.conversations import Conversations, PreviousResponseNotFound


def test_a_response_is_continued_by_its_account_only():
    conversations = Conversations(most=2)
    conversations.remember("a", "resp_1", ["said"])

    assert conversations.items_until("a", "resp_1") == ["said"]
    assert conversations.items_until("a", None) == ()
    with pytest.raises(PreviousResponseNotFound):
        conversations.items_until("b", "resp_1")


def test_the_oldest_response_is_forgotten_first():
    conversations = Conversations(most=2)
    for number in (1, 2, 3):
        conversations.remember("a", f"resp_{number}", [number])

    assert conversations.items_until("a", "resp_3") == [3]
    with pytest.raises(PreviousResponseNotFound) as raised:
        conversations.items_until("a", "resp_1")
    assert raised.value.refusal.body["error"]["code"] == "previous_response_not_found"
