"""A probe says by its exit status whether a process is healthy."""

import http.server
import subprocess
import sys
import threading

import pytest

from service_runtime.probe import healthy


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health/live" else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_process_that_answers_200_is_healthy(server):
    assert healthy(f"{server}/health/live")


def test_a_process_that_answers_503_is_not(server):
    assert not healthy(f"{server}/health/ready")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_is_not_healthy(server, scheme):
    assert not healthy(f"{scheme}://127.0.0.1:1")


def test_other_schemes_are_refused():
    with pytest.raises(ValueError, match="only http:// and grpc://"):
        healthy("file:///etc/passwd")


def test_a_proxy_that_the_environment_names_is_not_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert healthy(f"{server}/health/live")


def test_as_a_command_it_tells_what_is_wrong(server):
    def run(path):
        command = [sys.executable, "-m", "service_runtime.probe", server + path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stderr

    assert run("/health/live") == (0, "")
    status, told = run("/health/ready")
    assert status == 1
    assert "503" in told
