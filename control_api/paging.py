"""Cursor paging: `{items, next_cursor}`. A cursor is opaque to clients and names the last item of the page before."""

import base64
import binascii
import math
from typing import Annotated

from fastapi import Query

from control_api.errors import InputRefused

PageLimit = Annotated[int, Query(ge=1, le=500, description="Most items to return.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]


def encode_cursor(key: str) -> str:
    """Returns the cursor after the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str:
    """Returns the key that a cursor stands for; empty for the first page. Raises `InputRefused`."""
    if not cursor:
        return ""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise InputRefused("This is not a cursor of this list.", field="cursor") from None
    if "\x00" in key:
        raise InputRefused("This is not a cursor of this list.", field="cursor")
    return key


def number_cursor(cursor: str | None) -> int | None:
    """Returns the number that a cursor stands for; None for the first page. Raises `InputRefused`."""
    key = decode_cursor(cursor)
    if not key:
        return None
    # Larger numbers are no ids of ours, and SQLite cannot take them.
    if not key.isascii() or not key.isdigit() or len(key) > 18:
        raise InputRefused("This is not a cursor of this list.", field="cursor")
    return int(key)


def encode_moment(moment: float, key: str) -> str:
    """Returns the cursor after the item of this moment and key, in a list that is sorted by time."""
    return encode_cursor(f"{moment!r} {key}")


def moment_cursor(cursor: str | None) -> tuple[float, str] | None:
    """Returns the moment and key that a cursor stands for; None for the first page. Raises `InputRefused`."""
    if not cursor:
        return None
    told, _, key = decode_cursor(cursor).partition(" ")
    try:
        moment = float(told)
    except ValueError:
        moment = math.nan
    if not key or not math.isfinite(moment):
        raise InputRefused("This is not a cursor of this list.", field="cursor")
    return moment, key
