import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_runtime.addresses import ALL_HOSTS, NO_PRIVATE_HOSTS, PrivateHosts, address_in, refusal

LOCAL = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "::1",
    "fe80::1",
    "fd00:ec2::254",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", LOCAL)
def test_private_addresses_however_they_are_written_are_for_those_who_said_so(address):
    found = ipaddress.ip_address(address)

    assert refusal(found, secure=True, allow_private=False)
    assert not refusal(found, secure=False, allow_private=True)


@pytest.mark.parametrize("address", ["224.0.0.1", "ff02::1", "0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::224.0.0.1"])
def test_some_addresses_are_never_an_upstream(address):
    assert refusal(ipaddress.ip_address(address), secure=True, allow_private=True)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses_need_tls(address):
    found = ipaddress.ip_address(address)

    assert not refusal(found, secure=True, allow_private=False)
    assert refusal(found, secure=False, allow_private=True)


@given(st.ip_addresses())
def test_without_permission_only_global_addresses_are_talked_to(address):
    if not refusal(address, secure=True, allow_private=False):
        assert address.is_global or address in ipaddress.ip_network("::ffff:0:0/96")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("10.0.0.1", True), ("[::1]", True), ("fe80::1%eth0", True), ("localhost", False), ("127.1", False)],
)
def test_an_address_is_told_from_a_name(host, expected):
    assert (address_in(host) is not None) is expected


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "on"])
def test_all_hosts_may_be_private(text):
    assert PrivateHosts.of(text) == ALL_HOSTS


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off", ""])
def test_no_host_may_be_private(text):
    assert PrivateHosts.of(text) == NO_PRIVATE_HOSTS


def test_the_hosts_that_are_named_may_be_private_and_no_others():
    hosts = PrivateHosts.of(" upstream_simulator, Models.Internal. ,[fd00::1] ")

    assert all(hosts.allow(host) for host in ("upstream_simulator", "models.internal", "MODELS.internal.", "fd00:0::1"))
    assert not any(hosts.allow(host) for host in ("internal", "evil.models.internal", "upstream", "fd00::2", ""))


@pytest.mark.parametrize("text", ["http://inside", "a b", "inside:80", "*.internal", "inside/8"])
def test_what_is_no_host_name_is_refused(text):
    with pytest.raises(ValueError, match="host names"):
        PrivateHosts.of(text)
