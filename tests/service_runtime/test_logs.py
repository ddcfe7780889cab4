"""Logs are events with fields, one JSON object a line, and secrets are masked even when somebody logs them."""

import json
import subprocess
import sys

import pytest

from service_runtime.logs import mask_secrets

PREPARE = """
import logging, structlog
from service_runtime.logs import configure_logs
configure_logs(service="gate", as_json=True)
log = structlog.get_logger("a")
"""


def logged(code):
    """Runs code in a process of its own, because logs are set up once a process, and returns its log lines."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code], capture_output=True, text=True, timeout=30, check=True
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_an_event_is_one_json_object_with_its_fields():
    (line,) = logged("log.warning('lease expired', lease_id=7)")

    assert {"event": "lease expired", "lease_id": 7, "level": "warning", "service": "gate"}.items() <= line.items()


def test_records_of_libraries_come_out_in_the_same_shape():
    (line,) = logged("logging.getLogger('somebody').error('failed %s', 'twice')")

    assert (line["event"], line["level"]) == ("failed twice", "error")


def test_below_the_level_nothing_is_written():
    assert logged("log.debug('noise')") == []


def test_a_traceback_does_not_show_local_variables():
    (line,) = logged(
        """
def fail(local):
    raise ValueError(len(local))
try:
    fail("secret-" + "value-1")
except ValueError:
    log.exception("boom")
"""
    )

    assert "ValueError: 14" in line["exception"]
    assert "secret-value-1" not in json.dumps(line)


@pytest.mark.parametrize(
    "fields",
    [
        {"access_token": "secret-value-1"},
        {"Authorization": "secret-value-1"},
        {"note": "sent Bearer secret-value-1 along"},
        {"note": "key sk-secret-value-1"},
        {"headers": {"cookie": "secret-value-1"}},
        {"answers": ["bearer secret-value-1"]},
        {"note": "eyJhbGciOi.eyJzdWIi.secret-value-1"},
    ],
)
def test_secrets_are_masked(fields):
    masked = mask_secrets(None, "warning", {"event": "refused", **fields})

    assert "secret-value-1" not in json.dumps(masked)
