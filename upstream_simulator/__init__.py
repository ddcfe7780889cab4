"""A stand-in for the ChatGPT Codex backend, its auth server and an OpenAI-compatible API, in one process.

It is as strict as they are, so that what works here works there, and it misbehaves on request (`x-simulate`, see
`faults`), so that what the others do about it can be seen. For demo, tests and benchmarks; never in a production image.

* `accounts`, `tokens`, `usage`: who exists, with which credentials, and how much quota is left
* `strictness`, `refusals`, `faults`: what is refused and in which words; what goes wrong on request
* `responses`, `script`: what a turn answers, as events, and how the faults change that
* `backend`, `sockets`, `auth_server`, `api_key_service`, `admin`: the HTTP and WebSocket side
* `stats`: what was seen, for tests to ask
"""
