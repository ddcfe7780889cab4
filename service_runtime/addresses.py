"""Which network addresses an upstream may have: the rules alone, shared by everybody who connects to one. Pure.

Private, loopback and link-local addresses are for hosts that an operator has named, and plain http goes to nobody else.
A name may resolve to something else a second later, so whoever connects asks about the very address it connects to.
"""

import ipaddress
import re
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ALL, _NONE = frozenset({"true", "1", "yes", "on"}), frozenset({"", "false", "0", "no", "off"})
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class PrivateHosts:
    """Hosts that may be at private, loopback or link-local addresses: none, those named, or all."""

    names: frozenset[str] = frozenset()
    everywhere: bool = False

    @classmethod
    def of(cls, text: str) -> "PrivateHosts":
        """Reads `true`, `false`, or host names and addresses with commas between them. Raises `ValueError`."""
        wanted = text.strip().lower()
        if wanted in _ALL | _NONE:
            return cls(everywhere=wanted in _ALL)
        names = [_plain(name) for name in wanted.split(",") if name.strip()]
        for name in names:
            if address_in(name) is None and not _HOST_NAME.fullmatch(name):
                raise ValueError(f"must be true, false, or host names with commas between them; {name!r} is none")
        return cls(names=frozenset(names))

    def allow(self, host: str) -> bool:
        """Returns whether a host, a name or an address, may be at such an address."""
        return self.everywhere or _plain(host) in self.names


NO_PRIVATE_HOSTS = PrivateHosts()
ALL_HOSTS = PrivateHosts(everywhere=True)


def address_in(host: str) -> Address | None:
    """Returns the address that a host or a socket's address is, None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return None


def refusal(address: Address, *, secure: bool, allow_private: bool) -> str:
    """Returns why an address must not be connected to; empty when it may be. `secure`: TLS will prove its name."""
    meant = _meant(address)
    if meant.is_multicast or meant.is_unspecified:
        return "This address cannot be an upstream."
    if not meant.is_global or (isinstance(meant, ipaddress.IPv6Address) and meant.is_site_local):
        return "" if allow_private else "Private, loopback and link-local addresses are not allowed."
    return "" if secure else "Plain http is for private addresses only."


def _meant(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 address stands for, where a gateway or the kernel would go there."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _plain(host: str) -> str:
    name = host.strip().strip("[]").lower().rstrip(".")
    address = address_in(name)
    return name if address is None else str(address)
