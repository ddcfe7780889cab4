"""The one way to talk to the admission server.

* `lease`: what a caller handles: needs, grants, denials, reports, and the interface `Admission`
* `session`: `AdmissionClient`, over the coalescing `Session` stream; its protocol is `holder`, without IO
* `policy`, `sync`: what the control API pushes, and `SyncClient`, the stream that carries it
* `state`: reading the server's state
* `memory`: `MemoryAdmission`, the twin for tests
* `errors`: everything that can go wrong

Inside: `wire` and `policy_wire` (protobuf on one side, values on the other), `digest`, `reports`, `rpc`.
"""
