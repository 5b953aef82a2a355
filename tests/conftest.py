"""What every suite below here may use, whatever is installed beside it: nobody's own settings, a PostgreSQL.

=================== ======== =========================================================================
``postgres_server``  session  a function: the server (``postgres_server.PostgresServer``)
``account``          test     an account of 12 digits that no other test has: nothing is shared; and
                              ``other_account`` another one
=================== ======== =========================================================================

The suites of the provider run beside older Airflows too, whose libraries the service doesn't work with:
``LOOKOUTVISION_TEST_SERVICE`` names the command ``lookoutvision`` of another environment then.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer

_home = tempfile.TemporaryDirectory(prefix="airflow-unit-tests-")


def pytest_configure() -> None:
    # Nobody's own configuration of AWS or of the service reaches the tests.
    for name in [name for name in os.environ if name.startswith(("AWS_", "LOOKOUTVISION_"))]:
        if not name.startswith("LOOKOUTVISION_TEST_"):
            del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Airflow reads its configuration when it is first imported, which is before any fixture runs.
        "AIRFLOW_HOME": _home.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgresql", "both"],
        default="both",
        help="what the service of the tests keeps its data in (default: both, one after the other)",
    )
    parser.addoption("--state-machine-steps", type=int, default=200, help="of test_state_machine.py")
    parser.addoption("--schedules", type=int, default=10, help="how many schedules tests/chaos runs")
    parser.addoption("--seed", type=int, default=1, help="the seed of the first; the next has the next")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class BySuite(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _suite(config.rootpath, nodeid)

    config.option.loadscopereorder = False  # the order is that of the collection
    return BySuite(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let suites begin first that may take long, and then those of many tests: none is left for the end."""
    if not hasattr(config, "workerinput"):
        return
    limits: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for item in items:
        suite = _suite(config.rootpath, item.nodeid)
        limit = item.get_closest_marker("timeout")
        limits[suite] = max(limits[suite], limit.args[0] if limit else 0)
        tests[suite] += 1
    order = sorted(tests, key=lambda suite: (-limits[suite], -tests[suite]))
    items.sort(key=lambda item: order.index(_suite(config.rootpath, item.nodeid)))


def _suite(root: Path, nodeid: str) -> str:
    """What a test runs in one process with: tests that share what takes long to make, all others by file."""
    return _suite_of(root / nodeid.partition("::")[0])


@cache
def _suite_of(file: Path) -> str:
    source = file.read_text(encoding="utf-8")
    if "(deployment: Deployment" in source:
        return "a whole Airflow"
    plugin = re.search(r'^pytest_plugins = \["(\w+)"\]', source, re.MULTILINE)
    return plugin[1] if plugin else str(file)


@pytest.fixture(scope="session")
def _session_stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def postgres_server(_session_stack: ExitStack) -> Callable[[], PostgresServer]:
    """A function: the server, started when it is first asked for."""
    return cache(lambda: _session_stack.enter_context(PostgresServer()))


@pytest.fixture
def account() -> str:
    return _new_account()


@pytest.fixture
def other_account() -> str:
    return _new_account()


def _new_account() -> str:
    # Not from `random`: pytest-randomly gives each test the same numbers.
    return f"{secrets.randbelow(10**12):012}"
