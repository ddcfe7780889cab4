"""What a message can hold: numbers and text of strangers, brought within it. Pure.

A value out of bounds says something about whoever sent it, never enough to lose a message over: lengths of time and
counts saturate, text keeps what can be encoded of it. What is not even a number or text raises `TypeError`.
"""

LONGEST_TIME = 366 * 86_400.0
"""Seconds. Longer than any reset, wait or hold that means something."""
LONGEST_TEXT = 128
"""Bytes of a code, a name or a key in the protocol."""
UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1


def span(seconds: float) -> float:
    """Returns a length of time within 0 and `LONGEST_TIME`: one that has passed is 0, one without an end the bound."""
    if seconds <= 0:
        return 0.0
    return min(LONGEST_TIME, seconds)  # in this order, because NaN is less than nothing: it becomes the bound as well


def uint32(number: int) -> int:
    """Returns a number within an unsigned 32-bit field."""
    return min(max(number, 0), UINT32_MAX)


def uint64(number: int) -> int:
    """Returns a number within an unsigned 64-bit field."""
    return min(max(number, 0), UINT64_MAX)


def text(value: str, longest: int = LONGEST_TEXT) -> str:
    """Returns text that can be encoded as UTF-8 and has at most so many bytes. Lone surrogates become `?`."""
    if len(value) <= longest and value.isascii():
        return value
    return value[:longest].encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")
