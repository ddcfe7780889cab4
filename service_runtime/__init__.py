"""What every process of Sluicegate does alike: settings, logs, TLS, signals. It knows no account and no lease.

* `settings`: environment variables, secrets from files, all errors at once
* `logs`: events with fields, as JSON or for a terminal
* `tls`: gRPC and HTTP credentials from files
* `http_server`: uvicorn, without signal handlers of its own
* `process`: run until a signal asks to stop
* `probe`, `grpc_probe`: ask a process whether it is healthy
* `private_files`, `deployment_secrets`: tokens and keys as files, made on first start
* `settings_page`: docs/configuration.md, from the settings
* `version`: the version of Sluicegate
"""
