"""A hosted model, buckets with pictures of plates, and operators that detect in them through a proxy.

A plugin of the test modules that name it in ``pytest_plugins``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from detection_runs import DetectionRuns, filled
from moto_s3 import running_s3
from trained_models import Account

from airflow_provider_lookoutvision.testing.service import running_service


@pytest.fixture(scope="session")
def s3(_session_stack: ExitStack) -> Any:
    return _session_stack.enter_context(running_s3("images", "reports"))


@pytest.fixture(scope="session")
def detection_account(_session_stack: ExitStack) -> Account:
    """An account whose project "plates" has a hosted model, which draws masks."""
    account = Account.of(_session_stack.enter_context(running_service()))
    account.project(masks=True)
    account.start("plates", account.train())
    return account


@pytest.fixture
def folder(s3: Any, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own, with twelve plates, every third of them spotted."""
    return filled(s3, f"{abs(hash(request.node.nodeid))}/")


@pytest.fixture
def runs(detection_account: Account, s3: Any, connect: Any) -> Iterator[DetectionRuns]:
    runs = DetectionRuns(detection_account, s3, connect)
    with runs.proxy:
        yield runs
