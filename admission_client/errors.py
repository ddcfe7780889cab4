"""Errors of the admission client, one tree:

* `AdmissionError`: base class
    * `Denied`: a decision was made, and it was no; carries the `Denial`
    * `AdmissionUnavailable`: no decision was made, the server is away or does not know us yet
    * `AcquireRejected`: no decision was made, the request itself was wrong
    * `SessionSuperseded`: another process took over our instance name; this client is over
    * `PolicyRefused`: the server refused a policy as a whole (`Sync` only)
    * `TermRefused`: a newer controller has taken over; this one is over (`Sync` only)
    * `UnknownSession`: there is no session of that id
"""

from admission_client.lease import Denial


class AdmissionError(Exception):
    """Base class of everything that this package raises on purpose."""


class Denied(AdmissionError):
    """The server decided no. `denial` says who, why and for how long."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.message or denial.reason.value)
        self.denial = denial


class AdmissionUnavailable(AdmissionError):
    """The server could not be asked in time. Nothing is held."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which trying again is worth it."""


class AcquireRejected(AdmissionError):
    """The acquire was malformed or out of bounds: a bug of the caller, not a lack of room."""

    def __init__(self, message: str, *, code: int, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.code = code
        """gRPC status code by number."""
        self.field = field
        self.retry_after = retry_after


class SessionSuperseded(AdmissionError):
    """A newer session of the same instance exists. Two processes share one instance name, or this one is a zombie."""


class PolicyRefused(AdmissionError):
    """The server refused the policy; the one before stays in force."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class TermRefused(AdmissionError):
    """The server has seen a controller with a newer term. This one must not push anything any more."""


class UnknownSession(AdmissionError):
    """No session has this id: it has ended, or never was."""
