"""Which port each process takes. One base moves all of them, so that two systems can run side by side."""

import socket
from dataclasses import dataclass, fields
from typing import Self


class PortTaken(Exception):
    """A port that a process needs is in use. The message names both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The TCP ports of one system, all on loopback."""

    edge: int = 8080
    control: int = 8081
    admission: int = 50051
    admission_metrics: int = 9101
    edge_metrics: int = 9102
    control_metrics: int = 9103
    simulator: int = 9999

    @classmethod
    def from_base(cls, base: int) -> Self:
        """Returns seven ports in a row: edge at `base`, then control, admission, three for metrics, the simulator."""
        names = ("edge", "control", "admission", "admission_metrics", "edge_metrics", "control_metrics", "simulator")
        return cls(**{name: base + offset for offset, name in enumerate(names)})

    @classmethod
    def free(cls) -> Self:
        """Returns ports that are free now, chosen by the system."""
        listeners = []
        try:
            for _ in fields(cls):
                listener = socket.socket()
                listener.bind(("127.0.0.1", 0))
                listeners.append(listener)
            numbers = [listener.getsockname()[1] for listener in listeners]
        finally:
            for listener in listeners:
                listener.close()
        return cls(**dict(zip((field.name for field in fields(cls)), numbers, strict=True)))

    def check_free(self, *, without: frozenset[str] = frozenset()) -> None:
        """Raises `PortTaken` for the first port that somebody listens on already."""
        for field in fields(self):
            if field.name in without:
                continue
            number = getattr(self, field.name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", number))
                except OSError as error:
                    purpose = field.name.replace("_", " ")
                    raise PortTaken(
                        f"port {number} ({purpose}) cannot be used: {error.strerror}. "
                        "Stop what listens there, or move all ports with --port-base N."
                    ) from None
