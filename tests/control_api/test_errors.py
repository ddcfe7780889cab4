import pytest

from control_api import errors
from control_api.errors import ControlError, problem_of, rule_of


def subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("kind", sorted(set(subclasses(ControlError)), key=str))
def test_every_error_has_a_row_in_the_table(kind):
    error = kind.__new__(kind)
    ControlError.__init__(error, "why")

    assert rule_of(error).status < 600
    assert rule_of(error).slug != "internal" or kind is errors.DatabaseError


def test_a_problem_tells_field_code_and_when_to_come_back():
    problem = problem_of(errors.InputRefused("too many", field="limit", code="bound", retry_after=3))

    assert problem.model_dump(exclude_none=True) == {
        "type": "urn:sluicegate:problem:invalid-input",
        "title": "The request is not valid",
        "status": 422,
        "detail": "too many",
        "code": "bound",
        "errors": [{"field": "limit", "message": "too many"}],
        "retry_after": 3,
    }
