"""A ledger on a workbench: a clock that is moved by hand, holders without a network."""

from random import Random
from typing import Any

from admission_server.decisions import AccountNeeds, Acquire, Denied, Failed, Heartbeat, Reason
from admission_server.events import Event
from admission_server.ledger import Ledger, Terms
from admission_server.policy import (
    AccountPolicy,
    KeyPolicy,
    PolicyDelta,
    PolicySettings,
    PolicySnapshot,
    ResourceSettings,
)
from admission_server.resources import Granted
from admission_server.sessions import Session, splitmix64

LANE = "lanes/proxy_http"
STAGE = "stages/response_create"
STREAMS = "accounts/-/streams"
CREATES = "accounts/-/response_creates"
Answer = Granted | Denied | Failed


def settings(name: str, limit: int, **others: Any) -> ResourceSettings:
    """Returns settings of a resource."""
    return ResourceSettings(name=name, limit=limit, **others)


def account(account_id: str, **others: Any) -> AccountPolicy:
    """Returns an account that serves."""
    values: dict[str, Any] = {"kind": "chatgpt", "access_token": f"t-{account_id}", "credential_version": 1}
    return AccountPolicy(account_id=account_id, **(values | others))


def key(key_id: str, **others: Any) -> KeyPolicy:
    """Returns a key; `sha(key_id)` is its hash."""
    return KeyPolicy(key_id=key_id, key_sha256=sha(key_id), **others)


def sha(key_id: str) -> bytes:
    """Returns the hash of a key."""
    return key_id.encode().ljust(32, b".")


class Bench:
    """One ledger, and the sessions on it."""

    def __init__(self, *resources: ResourceSettings, terms: Terms | None = None, **policy: Any) -> None:
        self.clock = 1000.0
        self.ledger = Ledger(epoch=3, clock=lambda: self.clock, random=Random(1), terms=terms or Terms())
        self.version = 0
        self.requests = 0
        self.push(*resources, **policy)

    def push(
        self,
        *resources: ResourceSettings,
        accounts: tuple[AccountPolicy, ...] = (),
        keys: tuple[KeyPolicy, ...] = (),
        **others: Any,
    ) -> None:
        """Puts a policy in force."""
        self.version += 1
        policy = PolicySettings(resources=resources, **others)
        self.ledger.apply_snapshot(PolicySnapshot(version=self.version, settings=policy, accounts=accounts, keys=keys))

    def change(self, **fields: Any) -> None:
        """Changes the policy in force."""
        self.version += 1
        self.ledger.apply_delta(PolicyDelta(version=self.version, base_version=self.version - 1, **fields))

    def session(self, instance: str = "edge-1/0", session_id: str = "") -> Session:
        """Opens a session."""
        return self.ledger.open(session_id or f"session_{instance}", instance=instance, role="edge").session

    def wait(self, seconds: float) -> None:
        """Lets time go by, in ticks."""
        end = self.clock + seconds
        while self.clock < end - 1e-9:
            self.clock = min(end, self.clock + 0.1)
            self.ledger.tick()

    def ask(self, session: Session, *resources: str, request_id: str = "", **fields: Any) -> str:
        """Sends an acquire and returns its request id."""
        self.requests += 1
        request_id = request_id or f"r{self.requests}"
        if "key_sha256" not in fields:
            fields.setdefault("peer", "peer")
        self.ledger.acquire(session, Acquire(request_id=request_id, resources=resources, **fields))
        return request_id

    def acquire(self, session: Session, *resources: str, **fields: Any) -> Answer | None:
        """Sends an acquire and returns its answer, None while it waits."""
        return answer_to(session, self.ask(session, *resources, **fields))

    def grant(self, session: Session, *resources: str, **fields: Any) -> Granted:
        """Sends an acquire that must be granted."""
        answer = self.acquire(session, *resources, **fields)
        assert isinstance(answer, Granted), answer
        return answer

    def refuse(self, session: Session, *resources: str, **fields: Any) -> Denied:
        """Sends an acquire that must be denied at once."""
        answer = self.acquire(session, *resources, **fields)
        assert isinstance(answer, Denied), answer
        return answer

    def turn(self, session: Session, **needs: Any) -> Answer | None:
        """Asks for a stream of an account."""
        fields = {"key_sha256": needs.pop("key_sha256")} if "key_sha256" in needs else {}
        return self.acquire(session, STREAMS, needs=AccountNeeds(**needs), **fields)

    def release(self, session: Session, granted: Granted) -> None:
        """Gives all seats of a grant back."""
        self.ledger.release(session, [lease.lease_id for lease in granted.leases])

    def beat(self, session: Session, *granted: Granted, seen: int | None = None) -> bool:
        """Sends a heartbeat for what is named. Returns whether the complete list is asked for."""
        ids = [lease.lease_id for g in granted for lease in g.leases]
        digest = sum(map(splitmix64, ids)) % 2**64
        seen = session.number if seen is None else seen
        self.ledger.heartbeat(session, Heartbeat(sequence=1, seen=seen, lease_count=len(ids), lease_digest=digest))
        asked, session.send_held = session.send_held, False
        return asked

    def held(self, name: str) -> int:
        """Returns how many seats of a resource are taken."""
        resource = self.ledger.catalogue.resources.get(name)
        return len(resource.leases) if resource is not None else 0

    def events(self) -> list[Event]:
        """Returns what happened."""
        return self.ledger.take_events()


def answer_to(session: Session, request_id: str) -> Answer | None:
    """Returns the answer to a request out of the mailbox, None without one."""
    found = [answer for answer in session.answers if answer.request_id == request_id]
    if not found:
        return None
    session.answers.remove(found[-1])
    return found[-1]


def reason(answer: Answer | None) -> Reason | None:
    """Returns why an acquire was denied, None when it was not."""
    return answer.reason if isinstance(answer, Denied) else None


def account_of(answer: Answer | None) -> str:
    """Returns the account that was granted."""
    assert isinstance(answer, Granted), answer
    assert answer.account is not None
    return answer.account.account_id
