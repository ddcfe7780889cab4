"""gRPC ignores an option whose name it does not know, without a word: so our names are held against its core."""

import importlib.util
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OPTION = re.compile(r'"(grpc\.[a-z0-9_.]+)"')


@pytest.mark.parametrize("file", ["admission_server/server.py", "admission_client/rpc.py"])
def test_grpc_knows_every_option_that_we_pass(file):
    found = importlib.util.find_spec("grpc._cython.cygrpc")
    assert found is not None
    assert found.origin is not None
    core = Path(found.origin).read_bytes()
    named = set(OPTION.findall((REPOSITORY / file).read_text(encoding="utf-8")))

    assert named
    assert {name for name in named if name.encode() not in core} == set()
