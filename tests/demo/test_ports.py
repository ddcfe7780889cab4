"""Ports move together, and a taken one is named."""

import socket

import pytest

from demo.ports import Ports, PortTaken


def test_one_base_moves_all_ports_apart_from_one_another():
    ports = Ports.from_base(20000)

    numbers = {getattr(ports, name) for name in Ports.__slots__}
    assert numbers == set(range(20000, 20007))
    assert ports.edge == 20000


def test_a_taken_port_is_an_error_that_names_it_and_its_purpose():
    ports = Ports.free()
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.control))
        other.listen()

        with pytest.raises(PortTaken, match=rf"port {ports.control} \(control\)"):
            ports.check_free()


def test_a_port_that_is_not_needed_may_be_taken():
    ports = Ports.free()
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.simulator))
        other.listen()

        ports.check_free(without=frozenset({"simulator"}))
