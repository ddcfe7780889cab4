"""A PostgreSQL of the tests' own: a new cluster in a temporary folder, on a loopback port, gone at the end."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from tests.control_api.running import free_port

_ROOT = 0
_START_WITHIN = 30.0


def binaries():
    """Returns the folder of PostgreSQL's programs, None where it is not installed."""
    found = shutil.which("initdb")
    # Debian keeps the programs of a server off the PATH.
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


class Cluster:
    """A running server with a superuser of the name `sluicegate`, who needs no password."""

    def __init__(self, programs):
        self._programs = programs
        # PostgreSQL refuses to run as root, and whoever it runs as must be able to reach its folder.
        self._user = "postgres" if os.geteuid() == _ROOT else None
        self._folder = Path(tempfile.mkdtemp(prefix="sluicegate-postgresql-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self):
        """Makes the cluster if need be, and starts the server."""
        data = self._folder / "data"
        if not data.exists():
            if self._user:
                account = pwd.getpwnam(self._user)
                os.chown(self._folder, account.pw_uid, account.pw_gid)
            who = ("--username", "sluicegate", "--auth", "trust")
            self._run("initdb", "--pgdata", data, *who, "--no-sync", "--encoding", "UTF8")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "60",
        }
        arguments = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", data, *arguments],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        deadline = time.monotonic() + _START_WITHIN
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.execute("SELECT 1")
                return
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self):
        """Stops the server at once, as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def remove(self):
        """Stops the server and removes what it stored."""
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self, *, template="template1"):
        """Makes a database and returns its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name):
        """Removes a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def url(self, name):
        """Returns the URL of a database, as an operator would write it."""
        return f"postgresql://sluicegate@127.0.0.1:{self.port}/{name}"

    def execute(self, statement):
        """Runs one statement, outside of any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program, *arguments):
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
