"""Settings that do not go together: told at start, all at once, each by the name of its variable."""

import pytest

from admission_server.settings import AdmissionSettings
from control_api.settings import ControlSettings
from edge_proxy.settings import EdgeSettings
from service_runtime.settings import SettingsError


def problems_of(settings, monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        settings.from_environment()
    return [problem.split(":")[0] for problem in refused.value.problems]


async def test_the_admission_server_tells_all_contradictions(monkeypatch):
    problems = problems_of(
        AdmissionSettings,
        monkeypatch,
        SLUICEGATE_ADMISSION_HOST="0.0.0.0",
        SLUICEGATE_ADMISSION_SESSION_TTL="3",
        SLUICEGATE_ADMISSION_HEARTBEAT="2",
        SLUICEGATE_ADMISSION_TLS_AUTHORITY="/somewhere.pem",
    )

    assert problems == [
        "SLUICEGATE_ADMISSION_TOKENS_FILE",
        "SLUICEGATE_ADMISSION_HEARTBEAT",
        "SLUICEGATE_ADMISSION_TLS_CERTIFICATE",
    ]


async def test_the_edge_tells_which_limit_could_never_strike(monkeypatch):
    problems = problems_of(
        EdgeSettings,
        monkeypatch,
        SLUICEGATE_EDGE_BODY_TIMEOUT="5",
        SLUICEGATE_EDGE_HANDSHAKE_TIMEOUT="5",
        SLUICEGATE_EDGE_KEEPALIVE_INTERVAL="400",
        SLUICEGATE_EDGE_STREAM_TIMEOUT="100",
        SLUICEGATE_EDGE_FRAME_LIMIT="16000000",
        SLUICEGATE_EDGE_BODY_BUDGET="16000000",
        SLUICEGATE_EDGE_WORKERS="2",
        SLUICEGATE_EDGE_ADMISSION_TLS_KEY="/somewhere.key",
    )

    assert problems == [
        "SLUICEGATE_EDGE_BODY_PROGRESS_TIMEOUT",
        "SLUICEGATE_EDGE_CONNECT_TIMEOUT",
        "SLUICEGATE_EDGE_KEEPALIVE_INTERVAL",
        "SLUICEGATE_EDGE_SILENCE_TIMEOUT",
        "SLUICEGATE_EDGE_BODY_BUDGET",
        "SLUICEGATE_EDGE_ADMISSION_TLS_CERTIFICATE",
    ]


async def test_the_control_api_wants_a_certificate_with_its_key(monkeypatch):
    problems = problems_of(
        ControlSettings,
        monkeypatch,
        SLUICEGATE_CONTROL_ADMISSION_TOKEN="t",
        SLUICEGATE_CONTROL_ADMISSION_TLS_CERTIFICATE="/somewhere.pem",
    )

    assert problems == ["SLUICEGATE_CONTROL_ADMISSION_TLS_CERTIFICATE"]


async def test_the_control_api_says_which_private_hosts_are_no_hosts(monkeypatch):
    problems = problems_of(
        ControlSettings,
        monkeypatch,
        SLUICEGATE_CONTROL_ADMISSION_TOKEN="t",
        SLUICEGATE_CONTROL_ALLOW_PRIVATE_UPSTREAMS="http://inside",
    )

    assert problems == ["SLUICEGATE_CONTROL_ALLOW_PRIVATE_UPSTREAMS"]
