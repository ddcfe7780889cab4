import pytest

from admission_server.roles import Role, RoleTokens, TokensFileError


def tokens_in(path, text):
    path.write_text(text, encoding="utf-8")
    return RoleTokens.from_file(path)


def test_a_file_names_roles_and_tokens(tmp_path):
    tokens = tokens_in(
        tmp_path / "tokens", "# ours\nedge edge-token-1\nedge edge-token-2  # the next one\n\ncontrol control-token\n"
    )

    assert tokens.role_of([("authorization", "Bearer edge-token-1")]) is Role.EDGE
    assert tokens.role_of([("authorization", "bearer edge-token-2")]) is Role.EDGE
    assert tokens.role_of([("authorization", "Bearer control-token")]) is Role.CONTROL


@pytest.mark.parametrize(
    "metadata",
    [None, [], [("authorization", "edge-token-1")], [("authorization", "Bearer other")], [("x-token", "edge-token-1")]],
)
def test_nothing_else_is_a_token(tmp_path, metadata):
    tokens = tokens_in(tmp_path / "tokens", "edge edge-token-1")

    assert tokens.role_of(metadata) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no tokens"),
        ("boss boss-token-1", "line 1"),
        ("edge edge-token-1\nedge", "line 2"),
        ("edge short", "line 1"),
        ("edge two words-of-token", "line 1"),
    ],
)
def test_a_wrong_file_is_an_error_without_any_token(tmp_path, text, problem):
    with pytest.raises(TokensFileError, match=problem) as caught:
        tokens_in(tmp_path / "tokens", text)

    assert "edge-token-1" not in str(caught.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(TokensFileError, match="nowhere"):
        RoleTokens.from_file(tmp_path / "nowhere")
