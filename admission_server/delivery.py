"""Carries what the ledger has decided to those it concerns: mail to streams and waiting calls, events to the log.

Call `deliver()` after everything that was done with the ledger, before anything is awaited: so every decision that was
taken while the last message was being written goes into the next one.
"""

import asyncio
from collections.abc import Callable

import structlog

from admission_server.decisions import Denied, EndReason, Failed
from admission_server.errors import CallError, SessionEndedByServer, SessionSuperseded
from admission_server.events import Event, GivenUp, LeaseReclaimed, Refused, Resynced, SessionEnded
from admission_server.ledger import Ledger
from admission_server.resources import Granted
from admission_server.sessions import Session

log = structlog.get_logger(__name__)

QUIET = 1.0
"""Seconds for which a denial of the same reason and resource is only counted after one was logged."""

Answer = Granted | Denied | Failed


class Stream:
    """The server's end of one `Session` stream."""

    __slots__ = ("ack", "closed_by", "fenced", "finished", "session", "wake")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.wake = asyncio.Event()
        self.ack: tuple[int, tuple[int, ...]] | None = None
        """Sequence of the last heartbeat to be acknowledged, and the leases that its list is to drop."""
        self.fenced = False
        """Whether the session has a newer stream: what is unread here is dropped."""
        self.finished = False
        """Whether the stream ends once its mail is written."""
        self.closed_by: CallError | None = None

    def acknowledge(self, sequence: int, dropped: tuple[int, ...]) -> None:
        """Lets the next message acknowledge a heartbeat."""
        self.ack = (sequence, (self.ack[1] if self.ack else ()) + dropped)
        self.wake.set()

    def finish(self, error: CallError | None = None) -> None:
        """Ends the stream once its mail is written; with an error unless it ends in order."""
        self.finished = True
        self.closed_by = self.closed_by or error
        self.wake.set()


class Delivery:
    """Streams by session, calls that wait for an answer, and the log of what happened."""

    def __init__(self, ledger: Ledger, *, remember: Callable[[], None]) -> None:
        """`remember` is called when the set of open sessions has become smaller."""
        self._ledger = ledger
        self._remember = remember
        self._streams: dict[str, Stream] = {}
        self._calls: dict[tuple[str, str], list[asyncio.Future[Answer]]] = {}
        self._denials = DenialLog(ledger.now)
        self.status_changed = asyncio.Event()
        """Set when an edge has reported something that may change an account's status: the controller waits for it."""

    def attach(self, stream: Stream) -> Stream | None:
        """Makes a stream the one of its session. Returns the one that it fences."""
        old = self._streams.get(stream.session.session_id)
        self._streams[stream.session.session_id] = stream
        return old

    def detach(self, stream: Stream) -> None:
        """The stream is over; its session may come back on another."""
        if self._streams.get(stream.session.session_id) is stream:
            del self._streams[stream.session.session_id]

    def is_connected(self, session: Session) -> bool:
        """Returns whether a session has a stream open."""
        return session.session_id in self._streams

    def streams(self) -> list[Stream]:
        """Returns all streams."""
        return list(self._streams.values())

    def expect(self, session: Session, request_id: str) -> "asyncio.Future[Answer]":
        """Returns what a unary call awaits: the answer to an acquire."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls.setdefault((session.session_id, request_id), []).append(future)
        return future

    def give_up(self, session: Session, request_id: str, future: "asyncio.Future[Answer]") -> None:
        """The call is over, answered or not."""
        waiting = self._calls.get((session.session_id, request_id), [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._calls.pop((session.session_id, request_id), None)

    def deliver(self) -> None:
        """Wakes streams that have mail, answers calls, and logs what happened."""
        for session in self._ledger.take_mail():
            stream = self._streams.get(session.session_id)
            if stream is not None and stream.session is session:
                stream.wake.set()
            elif session.unary:
                self._answer_calls(session)
        for event in self._ledger.take_events():
            self._note(event)

    def _answer_calls(self, session: Session) -> None:
        while session.answers:
            for answer in session.take_answers():
                for future in self._calls.get((session.session_id, answer.request_id), []):
                    if not future.done():
                        future.set_result(answer)

    def _note(self, event: Event) -> None:
        match event:
            case Refused(session, denied):
                self._denials.note(session, denied)
            case SessionEnded(session, reason, reclaimed):
                self._note_end(session, reason, reclaimed)
            case GivenUp(session_id):
                log.warning("missing session given up", session_id=session_id)
                self._remember()
            case LeaseReclaimed(lease, reason, held_for):
                log.warning(
                    "lease reclaimed",
                    lease_id=lease.lease_id,
                    resource=lease.resource.name,
                    reason=reason.value,
                    session_id=lease.session.session_id,
                    request_id=lease.grant.request_id,
                    held_for=round(held_for, 3),
                )
            case Resynced(session, leaked, adopted, dropped):
                log.warning(
                    "books compared",
                    session_id=session.session_id,
                    instance=session.instance,
                    leaked=leaked,
                    adopted=adopted,
                    dropped=dropped,
                )

    def _note_end(self, session: Session, reason: EndReason, reclaimed: int) -> None:
        orderly = reason is EndReason.RELEASED
        (log.info if orderly else log.warning)(
            "session ended",
            session_id=session.session_id,
            instance=session.instance,
            reason=reason.value,
            reclaimed=reclaimed,
        )
        stream = self._streams.get(session.session_id)
        if stream is not None and stream.session is session:
            stream.finish(_ENDINGS.get(reason, _no_error)(session))
        if session.unary:
            self._answer_calls(session)
        self._remember()


class DenialLog:
    """One line a denial; while the same one repeats, one line a second with the number that it stands for."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._quiet_until: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], int] = {}

    def note(self, session: Session, denied: Denied) -> None:
        """Logs a denial, or counts it."""
        kind = (denied.reason.value, denied.resource)
        now = self._now()
        if now < self._quiet_until.get(kind, now):
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        if len(self._quiet_until) > 1_000:
            self._quiet_until.clear()
            self._untold.clear()
        self._quiet_until[kind] = now + QUIET
        log.info(
            "acquire denied",
            request_id=denied.request_id,
            reason=denied.reason.value,
            resource=denied.resource,
            limit=denied.limit,
            held=denied.held,
            waiters=denied.waiters,
            session_id=session.session_id,
            repeated=self._untold.pop(kind, 0),
        )


def _no_error(_session: Session) -> None:
    return None


def _superseded(session: Session) -> CallError:
    return SessionSuperseded(f"another session of instance {session.instance!r} has opened; this one is over")


def _ended(_session: Session) -> CallError:
    return SessionEndedByServer("the session has ended; say hello again and claim what you still hold")


_ENDINGS: dict[EndReason, Callable[[Session], CallError | None]] = {
    EndReason.SUPERSEDED: _superseded,
    EndReason.EXPIRED: _ended,
    EndReason.FORGOTTEN: _ended,
}
