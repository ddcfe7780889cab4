"""The access log."""

import io

import orjson
from prometheus_client import CollectorRegistry

from edge_proxy.access import AccessLog, hashed, json_lines
from edge_proxy.metrics import EdgeMetrics


def test_a_line_tells_where_the_time_went_and_hides_the_account():
    now = [100.0]
    stream = io.BytesIO()
    registry = CollectorRegistry()
    access = AccessLog(EdgeMetrics(registry), lambda: now[0], json_lines(stream, service="edge_proxy"))
    record = access.open("req_1")
    record.route, record.lane, record.account_id, record.status = "responses", "lanes/proxy_http", "acc_secret", 200
    record.admission_wait, record.outcome, record.tokens = 0.25, "completed", {"output_tokens": 7}
    now[0] = 102.0
    access.close(record)

    line = orjson.loads(stream.getvalue())
    assert line["request_id"] == "req_1"
    assert line["lane"] == "proxy_http"
    assert line["account"] == hashed("acc_secret") != "acc_secret"
    assert (line["admission_wait_ms"], line["total_ms"], line["output_tokens"]) == (250.0, 2000.0, 7)
    assert (line["event"], line["service"]) == ("request", "edge_proxy")
    assert b"acc_secret" not in stream.getvalue()
    assert registry.get_sample_value("sluicegate_edge_tokens_total", {"kind": "output_tokens"}) == 7


def test_of_a_name_without_end_a_line_keeps_the_beginning():
    stream = io.BytesIO()
    access = AccessLog(EdgeMetrics(CollectorRegistry()), lambda: 0.0, json_lines(stream, service="edge_proxy"))
    record = access.open("req_1")
    record.model = "m" * 100_000

    access.close(record)

    assert orjson.loads(stream.getvalue())["model"] == "m" * 128
