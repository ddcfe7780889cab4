"""Asks the OSV service whether known holes concern the versions that the locks name: `python -m requirements.audit`.

Exit status 1 when there are some. Where the service cannot be reached, that is said in one line and nothing fails: what
was checked yesterday is not wrong because the network is away. It never takes longer than its deadline.
"""

import http.client
import json
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

SERVICE = "https://api.osv.dev/v1/querybatch"
DEADLINE = 20
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pinned_in(locks: Iterable[str]) -> list[tuple[str, str]]:
    """Returns name and version of everything that the locks pin, once each."""
    return sorted({(name.lower(), version) for lock in locks for name, version in _PINNED.findall(lock)})


def holes(pinned: list[tuple[str, str]], *, service: str = SERVICE) -> list[str]:
    """Returns one line for each known hole. Raises `OSError` or `ValueError` when the service has no answer."""
    queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in pinned]
    request = urllib.request.Request(  # noqa: S310  # the service is a constant, or a test's own
        service, data=json.dumps({"queries": queries}).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:  # noqa: S310  # see above
        results = json.load(answer)["results"]
    if len(results) != len(pinned):
        raise ValueError("the service answered about something else")
    return [
        f"{name} {version}: {found['id']}"
        for (name, version), result in zip(pinned, results, strict=True)
        for found in result.get("vulns", ())
    ]


def audit(folder: Path, *, service: str = SERVICE, deadline: int = DEADLINE) -> int:
    """Audits the locks in a folder, says what came of it, and returns the exit status."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {deadline} s")

    pinned = pinned_in(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.lock")))
    before = signal.signal(signal.SIGALRM, give_up)  # resolving a name has no time limit of its own
    signal.alarm(deadline)
    try:
        found = holes(pinned, service=service)
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        print(f"audit: skipped, the advisory service cannot be asked from here ({error})")  # noqa: T201
        return 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    for line in found:
        print(f"audit: {line}, see https://osv.dev/{line.rpartition(' ')[2]}")  # noqa: T201
    print(f"audit: {len(found)} known holes in {len(pinned)} locked packages")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(audit(Path(__file__).parent))
