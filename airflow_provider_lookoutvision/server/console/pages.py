"""Every page, by method and path below the console's: the table of contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_lookoutvision.server.console import (
    dataset_pages,
    evaluation_pages,
    labelling,
    model_pages,
    project_pages,
    review_pages,
    trial_pages,
    upload_pages,
)

PAGES: Mapping[tuple[str, str], Callable[..., Any]] = {
    **project_pages.PAGES,
    **dataset_pages.PAGES,
    **upload_pages.PAGES,
    **labelling.PAGES,
    **model_pages.PAGES,
    **evaluation_pages.PAGES,
    **trial_pages.PAGES,
    **review_pages.PAGES,
}
