"""The digest: its test values, and that it does not care about order."""

import random

from admission_client.digest import LeaseDigest, splitmix64


def test_the_function_has_the_published_values():
    # Sebastiano Vigna's splitmix64.c, first outputs for the seeds 0 and 1234567.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317


def test_the_digest_of_nothing_is_zero():
    assert LeaseDigest().value() == 0


def test_the_digest_depends_on_the_set_only():
    source = random.Random(1)
    lease_ids = [(1 << 40) + n for n in range(100)]
    one, other = LeaseDigest(), LeaseDigest()
    for lease_id in lease_ids:
        one.add(lease_id)
    shuffled = source.sample(lease_ids, len(lease_ids))
    for n, lease_id in enumerate(shuffled):
        other.add(lease_id)
        if n % 7 == 0:
            other.value()
        if n % 3 == 0:
            other.remove(lease_id)
            other.add(lease_id)

    assert one.value() == other.value() == sum(map(splitmix64, lease_ids)) % 2**64


def test_what_was_removed_is_out():
    digest = LeaseDigest()
    digest.add(1)
    digest.value()
    digest.add(2)
    digest.remove(1)
    digest.remove(2)

    assert digest.value() == 0
