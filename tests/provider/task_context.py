"""For operators without a DAG run: a context, a connection to an account, and a kill."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from trained_models import Account

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange


def context(run_id: str, *, cleared: int = 0, tries: int = 1, map_index: int = -1) -> Any:
    """The context of a try of a task instance, which has been cleared so often, and tried so often since."""
    task = SimpleNamespace(retries=0)
    ti = SimpleNamespace(dag_id="dag", run_id=run_id, task_id="task", map_index=map_index, task=task)
    return {"ti": SimpleNamespace(**vars(ti), max_tries=cleared, try_number=cleared + tries)}


def connected(connect: Any, account: Account, **extra: Any) -> str:
    """A connection to an account."""
    extra = {"endpoint_url": account.service.endpoint_url, **extra}
    return str(connect(login=account.key.access_key_id, password=account.key.secret_access_key, **extra))


def unguarded(operator: Any, context: Any) -> Any:
    """Run an operator without Airflow's guard of that, which in Airflow 2 works in the main thread only."""
    return unwrap(type(operator).execute)(operator, context)


def kill(operator: Any, run_id: str) -> None:
    """Run an operator whose task is killed as soon as its work begins; it goes on, as in Airflow 3."""
    set_cancellation = operator.set_cancellation

    def killed(*arguments: Any, **members: Any) -> None:
        set_cancellation(*arguments, **members)
        operator.on_kill()

    operator.set_cancellation = killed
    try:
        operator.execute(context(run_id))
    except AirflowFailException:
        raise  # then there would be no retry
    except AirflowException:
        pass


def first_answer_of_each_change() -> Callable[[Exchange], bool]:
    """For a ``LossyProxy``: of every request that changes something the first answer is lost."""
    seen = set()

    def drop(exchange: Exchange) -> bool:
        change = (exchange.method, exchange.path)
        known = exchange.method == "GET" or change in seen
        seen.add(change)
        return not known

    return drop
