"""A seeded simulation of a whole network: the real client library and the real admission server, under a virtual clock.

* `world`: an event loop whose time jumps, machines that pause and die, and chance; everything follows from the seed
* `network`: streams that delay, stall and break as TCP does, in the place of gRPC
* `edge`: a process with the real `AdmissionClient` and callers with a will of their own
* `server`: the real servicer, ledger and translation; restarts with what the registry remembers
* `invariants`: what must be true after every step
* `scenario`: one seed from beginning to end; `python -m tests.simulation` runs many
"""
