"""The one way to talk to the admission server.

* `lease`: what a caller handles: needs, grants, denials, reports, and the interface `Admission`
* `session`: `AdmissionClient`, over the coalescing `Session` stream
* `policy`, `sync`: what the control API pushes, and the stream that carries it
* `state`: reading the server's state
* `memory`: `MemoryAdmission`, the twin for tests
* `errors`: everything that can go wrong
"""
