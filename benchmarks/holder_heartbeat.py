"""The client's half of a heartbeat: building and serialising the message, by how many leases are held."""

import itertools
import time

from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb

from admission_client.holder import Claim, Holder
from benchmarks.bare_ledger import HeartbeatCost, best_of


def holder_heartbeat_costs(sizes: tuple[int, ...]) -> list[HeartbeatCost]:
    """Returns what one heartbeat costs the holder."""
    return [HeartbeatCost(leases=size, microseconds=_cost(size) * 1e6) for size in sizes]


def _cost(size: int) -> float:
    holder = Holder(instance="bench", session_id="bench_session", clock=time.monotonic)
    holder.hello()
    welcome = session_pb.Welcome(epoch=1, has_policy=True)
    welcome.ttl.seconds = 3600
    welcome.heartbeat_in.seconds = 3600
    holder.received(session_pb.SessionResponse(number=1, welcome=welcome))
    for n in range(size):
        claim = Claim(("lanes/proxy_http",))
        holder.ask(claim)
        holder.take()
        grant = pb.Grant(lease_ids=[(1 << 40) + n])
        holder.received(
            session_pb.SessionResponse(number=2 + n, answers=[pb.Answer(request_id=claim.request_id, grant=grant)])
        )
    sequence = itertools.count(1)
    return best_of(lambda: _beat(holder, next(sequence)))


def _beat(holder: Holder, sequence: int) -> None:
    ack = session_pb.HeartbeatAck(sequence=sequence - 1, has_policy=True)
    holder.received(session_pb.SessionResponse(number=sequence, heartbeat_ack=ack))
    message = holder.take()
    if message is None or message.heartbeat.sequence != sequence:
        raise AssertionError("no heartbeat")
    message.SerializeToString()
