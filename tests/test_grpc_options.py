"""gRPC ignores an option whose name it does not know, without a word: so our names are held against its core."""

import re
from pathlib import Path

import pytest
from grpc._cython import cygrpc

REPOSITORY = Path(__file__).parents[1]
OPTION = re.compile(r'"(grpc\.[a-z0-9_.]+)"')


@pytest.mark.parametrize("file", ["admission_server/server.py", "admission_client/rpc.py"])
def test_grpc_knows_every_option_that_we_pass(file):
    core = Path(cygrpc.__file__).read_bytes()
    named = set(OPTION.findall((REPOSITORY / file).read_text(encoding="utf-8")))

    assert named
    assert {name for name in named if name.encode() not in core} == set()
