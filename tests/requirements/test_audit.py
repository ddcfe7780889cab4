import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from requirements.audit import audit, pinned_in

LOCK = """# made by make locks
aiohttp==3.14.5 \\
    --hash=sha256:00
uvicorn[standard]==0.54.0 ; sys_platform != 'win32' \\
    --hash=sha256:11
    # via sluicegate
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "edge.lock").write_text(LOCK)
    (tmp_path / "dev.lock").write_text(LOCK)
    return tmp_path


@pytest.fixture
def service():
    """An advisory service that answers what it is told to, and remembers what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["content-length"])
            self.server.asked = json.loads(self.rfile.read(length))["queries"]  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.answer)  # type: ignore[attr-defined]

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}/"


def test_pins_are_read_once_each():
    assert pinned_in([LOCK, LOCK]) == [("aiohttp", "3.14.5"), ("uvicorn", "0.54.0")]


def test_locks_without_known_holes_pass(folder, service, capsys):
    service.answer = b'{"results":[{},{}]}'
    status = audit(folder, service=url_of(service))

    assert status == 0
    assert capsys.readouterr().out == "audit: 0 known holes in 2 locked packages\n"
    assert service.asked[0] == {"package": {"ecosystem": "PyPI", "name": "aiohttp"}, "version": "3.14.5"}


def test_a_known_hole_fails_and_is_named(folder, service, capsys):
    service.answer = b'{"results":[{},{"vulns":[{"id":"GHSA-1"}]}]}'
    status = audit(folder, service=url_of(service))

    assert status == 1
    assert "uvicorn 0.54.0: GHSA-1" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"results":[]}'])
def test_an_answer_that_is_none_is_no_verdict(folder, service, capsys, answer):
    service.answer = answer
    status = audit(folder, service=url_of(service))

    assert status == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_service_that_is_silent_is_not_waited_for(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        status = audit(folder, service=f"http://127.0.0.1:{silent.getsockname()[1]}/", deadline=1)

    assert status == 0
    assert time.monotonic() - began < 10
    assert "skipped" in capsys.readouterr().out
