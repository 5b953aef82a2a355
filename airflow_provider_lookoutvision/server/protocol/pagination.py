"""Pages by key: a page begins after the last key of the one before, whatever was added or removed since.

A page token is opaque, in the standard base64 alphabet, signed, and bound to its query: with other filters,
another region or another account it is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.server.protocol.errors import ValidationException
from airflow_provider_lookoutvision.server.storage.encryption import Cipher

LARGEST_PAGE = 100
_SIGNATURE_BYTES = 16


@dataclass(frozen=True)
class Page:
    """What a list operation was asked for: at most ``size`` rows, all after the key ``after``."""

    size: int
    after: Any
    _cipher: Cipher
    _purpose: str

    def cut(self, rows: Sequence[Any], key: str) -> tuple[Sequence[Any], str | None]:
        """The page, and the token of the next one or None, from ``size + 1`` rows asked for."""
        if len(rows) <= self.size:
            return rows, None
        page = rows[: self.size]
        text = json.dumps(getattr(page[-1], key)).encode()
        return page, base64.b64encode(self._cipher.sign(self._purpose, text) + text).decode()


def page(cipher: Cipher, query: Sequence[Any], next_token: str | None, max_results: int | None) -> Page:
    """Read the paging members of a list request.

    :param query: what distinguishes this query from others: operation, account, region, filters.
    :raises ValidationException: when the token isn't one that this query was given.
    """
    purpose = "page " + json.dumps(query)
    after = None
    if next_token:
        try:
            content = base64.b64decode(next_token, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        signature, text = content[:_SIGNATURE_BYTES], content[_SIGNATURE_BYTES:]
        if not text or not cipher.verifies(purpose, text, signature):
            raise ValidationException(
                "NextToken is not one that this query returned: repeat the query without it, and pass on the "
                "token of each answer with the same filters"
            )
        after = json.loads(text)
    return Page(max_results or LARGEST_PAGE, after, cipher, purpose)
