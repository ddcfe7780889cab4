"""docs/protocol.md says what the code does: its tables are complete, its test values right."""

import re
from pathlib import Path

from admission.v1 import admission_pb2 as pb

from admission_client.digest import LeaseDigest, splitmix64
from admission_client.lease import DenialReason
from admission_server.errors import STATUS
from edge_proxy import errors as edge_errors

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def rows(heading):
    """Returns the cells of the tables in a section, without heads."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith(("| `", "| none"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_reason_of_the_contract_is_in_the_denial_table():
    of_the_contract = {name.removeprefix("DENIAL_REASON_") for name in pb.DenialReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    of_the_page = [names(row[0])[0] for row in rows("Denials")]

    assert sorted(of_the_page) == sorted(of_the_contract)
    assert {reason.name for reason in DenialReason} - {"UNKNOWN"} == of_the_contract


def test_the_edge_answers_as_the_denial_table_says():
    of_the_page = {names(row[0])[0]: (int(row[2]), names(row[3])[0]) for row in rows("Denials")}

    assert of_the_page == {reason.name: (look.status, look.code) for reason, look in edge_errors._DENIALS.items()}


def test_every_error_of_the_server_is_in_the_error_table():
    of_the_page = {names(row[0])[0]: names(row[1])[0] for row in rows("Errors")}

    assert of_the_page == {error.reason: status.name for error, status in STATUS.items()}


def test_the_values_of_the_digest_are_right():
    for cell, result in rows("Heartbeats and the digest"):
        ids = [int(value, 16) for value in names(cell)]
        digest = LeaseDigest()
        for lease_id in ids:
            digest.add(lease_id)
        expected = {digest.value(), splitmix64(ids[0])} if len(ids) == 1 else {digest.value()}

        assert int(names(result)[0], 16) in expected


def test_sections_are_linked_from_the_top():
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    links = re.findall(r"^- \[(.+)\]\(#.+\)$", PAGE, re.MULTILINE)

    assert links == headings
