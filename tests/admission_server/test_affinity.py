from admission_server.affinity import OwnerMap


def test_a_key_belongs_to_an_account_until_it_is_unused_for_its_ttl():
    owners = OwnerMap(capacity=10, ttl=30.0)
    owners.put("red", "thread", "acc_1", 0.0)
    used = owners.get("red", "thread", 29.0)

    assert used == "acc_1"
    assert owners.get("red", "thread", 58.0) == "acc_1"
    assert owners.get("red", "thread", 88.0) is None
    assert len(owners) == 0


def test_keys_of_different_clients_never_meet():
    owners = OwnerMap(capacity=10, ttl=30.0)
    owners.put("red", "thread", "acc_1", 0.0)

    assert owners.get("blue", "thread", 0.0) is None
    assert owners.get("", "thread", 0.0) is None


def test_the_least_recently_used_makes_room():
    owners = OwnerMap(capacity=2, ttl=30.0)
    owners.put("red", "one", "acc_1", 0.0)
    owners.put("red", "two", "acc_1", 0.0)
    owners.get("red", "one", 1.0)
    owners.put("red", "three", "acc_1", 2.0)

    assert owners.get("red", "one", 3.0) == "acc_1"
    assert owners.get("red", "two", 3.0) is None
    assert len(owners) == 2
