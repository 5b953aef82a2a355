"""The client token of one task instance.

A token made here is the same on every automatic retry of a task instance, however the earlier try ended, and
different for every other task instance, mapped index, run, namespace and purpose, and after a clear of a
finished task. It is derived from who asks, never from what is asked for: a retry whose parameters render
differently meets the service's refusal instead of making a second resource. ``docs/exactly-once.md`` tells
the whole story.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_MAX_LENGTH = 64  # of the API's ClientToken, whose characters are [a-zA-Z0-9-]


def client_token(context: Context, *purpose: str, namespace: str = "") -> str:
    """Return the client token of the task instance that runs in ``context``.

    :param context: the context that Airflow passes to ``execute``.
    :param purpose: what the call is for, in a task that makes several.
    :param namespace: tells one Airflow deployment from another that runs the same DAGs against the same
        account.
    :return: 64 characters of ``[a-z0-9-]``.
    """
    return _token(context["ti"], _clear_epoch(context["ti"]), purpose, namespace)


def tokens_of_other_epochs(context: Context, *purpose: str, namespace: str = "") -> Iterator[str]:
    """Yield the tokens that this task instance can have had before it was cleared.

    One for each possible clear epoch but the current one, the newest first. An epoch is the number of tries
    that came before the clear, so none is above the current ``try_number``.

    :param context: as for :func:`client_token`.
    :param purpose: as for :func:`client_token`.
    :param namespace: as for :func:`client_token`.
    """
    ti = context["ti"]
    current = _clear_epoch(ti)
    for epoch in range(ti.try_number, -1, -1):
        if epoch != current:
            yield _token(ti, epoch, purpose, namespace)


def _clear_epoch(ti: Any) -> int:
    # Airflow counts no clears of a task instance, but a clear sets max_tries to the tries so far plus the
    # task's retries, and a retry leaves it alone. Editing `retries` during a run shifts the epoch, below zero
    # too: that is still an identity, and the one before the edit is among the other epochs.
    return int(ti.max_tries) - int(ti.task.retries or 0)


def _token(ti: Any, epoch: int, purpose: tuple[str, ...], namespace: str) -> str:
    map_index = -1 if ti.map_index is None else ti.map_index
    identity = [namespace, ti.dag_id, ti.run_id, ti.task_id, map_index, epoch, *purpose]
    # JSON keeps the parts apart whatever separators they hold. Unescaped, because escapes would give a pair
    # of lone surrogates and the character that they encode one spelling.
    joined = json.dumps(identity, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return f"airflow-{hashlib.sha256(joined).hexdigest()}"[:_MAX_LENGTH]
