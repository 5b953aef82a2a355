"""The client token of a task instance.

The token is the same on every automatic retry of a task instance, however the earlier try ended. It is
different for every other task instance, mapped index, run, namespace and purpose, and after a clear of a
finished task. It depends on the task instance, never on the parameters of the call: a retry whose parameters
render differently is refused by the service, and doesn't make a second resource. See
``docs/exactly-once.md``.

A run that is deleted and created again under the same run ID is another run. From Airflow 3.3 on, its token
is another one too, by a nonce in the task state store, whose rows are kept for the run's retries and clears,
and deleted with the run.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_MAX_LENGTH = 64  # of the API's ClientToken, whose characters are [a-zA-Z0-9-]
_NONCE_KEY = "lookoutvision_token_nonce"
_NEVER_EXPIRE = timedelta.max  # what Airflow calls NEVER_EXPIRE


def client_token(context: Context, *purpose: str, namespace: str = "") -> str:
    """Return the client token of the task instance that runs in ``context``.

    :param context: the context that Airflow passes to ``execute``.
    :param purpose: what the call is for, in a task that makes several.
    :param namespace: distinguishes Airflow deployments that run the same DAGs on the same account.
    :return: 64 characters of ``[a-z0-9-]``.
    """
    return _token(context["ti"], _clear_generation(context["ti"]), _nonce(context), purpose, namespace)


def is_retry(context: Context) -> bool:
    """Whether an earlier try of the task instance had the same token; after a clear none has."""
    ti = context["ti"]
    return int(ti.try_number) - max(0, _clear_generation(ti)) > 1


def previous_tokens(context: Context, *purpose: str, namespace: str = "") -> Iterator[str]:
    """Yield the tokens that this task instance may have had before it was cleared.

    There is one for each possible clear generation but the current one, the newest first. A generation is the
    number of tries before the clear, so none is above the current ``try_number``.

    :param context: as for :func:`client_token`.
    :param purpose: as for :func:`client_token`.
    :param namespace: as for :func:`client_token`.
    """
    ti = context["ti"]
    current, nonce = _clear_generation(ti), _nonce(context)
    for generation in range(ti.try_number, -1, -1):
        if generation != current:
            yield _token(ti, generation, nonce, purpose, namespace)


def _clear_generation(ti: Any) -> int:
    # Airflow doesn't count the clears of a task instance. But a clear sets max_tries to the tries so far plus
    # the task's retries, and a retry leaves max_tries alone. Editing `retries` during a run shifts the
    # generation, even below zero: it still identifies the task instance, and previous_tokens has the one
    # before the edit.
    return int(ti.max_tries) - int(ti.task.retries or 0)


def _nonce(context: Context) -> str:
    """A random text of this run's task instance; empty where Airflow has no place to keep one."""
    from airflow.providers.common.compat.sdk import conf

    store: Any = context.get("task_state_store")
    # A nonce that is gone after a success would be another one after a clear.
    if store is None or conf.getboolean("state_store", "clear_on_success", fallback=False):
        return ""
    nonce = store.get(_NONCE_KEY)
    if nonce is None:
        # Without a nonce at a later try, an earlier one had none: before an upgrade, it ran without.
        nonce = secrets.token_hex(16) if context["ti"].try_number <= 1 else ""
        store.set(_NONCE_KEY, nonce, retention=_NEVER_EXPIRE)
    return str(nonce)


def _token(ti: Any, generation: int, nonce: str, purpose: tuple[str, ...], namespace: str) -> str:
    map_index = -1 if ti.map_index is None else ti.map_index
    identity = [namespace, ti.dag_id, ti.run_id, ti.task_id, map_index, generation, *purpose]
    if nonce:
        identity.append({"nonce": nonce})
    # JSON keeps the parts apart, whatever separators they contain. It isn't escaped, since escapes would
    # spell a pair of lone surrogates and the character that they encode in the same way.
    joined = json.dumps(identity, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return f"airflow-{hashlib.sha256(joined).hexdigest()}"[:_MAX_LENGTH]
