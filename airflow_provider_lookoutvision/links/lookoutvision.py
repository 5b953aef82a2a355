"""Links from a task to what it worked on, in the service's console.

The pages' addresses are known when the task runs, which knows the connection's endpoint. An XCom keeps them
for Airflow's UI. A link without an address isn't shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

XCOM_KEY = "lookoutvision_console"


class _ConsoleLink(BaseOperatorLink):
    """A page of the console."""

    name: ClassVar[str]
    page: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address, or nothing if the task has not come to it."""
        from airflow.providers.common.compat.sdk import XCom

        pages: Any = getattr(operator, "console_pages", None)
        if not pages:
            try:
                pages = XCom.get_value(key=XCOM_KEY, ti_key=ti_key)
            except Exception:  # whatever it is: a link is no reason for a page of the UI to fail
                return ""
        return str((pages or {}).get(self.page, ""))


class LookoutVisionProjectLink(_ConsoleLink):
    """The project."""

    name = "Project"
    page = "project"


class LookoutVisionDatasetLink(_ConsoleLink):
    """The dataset: its images and labels."""

    name = "Dataset"
    page = "dataset"


class LookoutVisionModelLink(_ConsoleLink):
    """The version of the project's models."""

    name = "Model"
    page = "model"


class LookoutVisionEvaluationLink(_ConsoleLink):
    """The model's evaluation."""

    name = "Evaluation"
    page = "evaluation"


class LookoutVisionVerdictsLink(_ConsoleLink):
    """The verdicts of a batch, with their images."""

    name = "Verdicts"
    page = "verdicts"


PROJECT_LINKS = (LookoutVisionProjectLink(),)
DATASET_LINKS = (LookoutVisionDatasetLink(), *PROJECT_LINKS)
MODEL_LINKS = (LookoutVisionModelLink(), LookoutVisionEvaluationLink(), *PROJECT_LINKS)
VERDICTS_LINKS = (LookoutVisionVerdictsLink(), *MODEL_LINKS)


def console_pages(
    console_url: str,
    project_name: str,
    *,
    dataset_type: str = "",
    model_version: str = "",
    results_s3_uri: str = "",
) -> Mapping[str, str]:
    """Return the addresses of the pages, by what they are of.

    :param console_url: the console's, without a slash at its end.
    """
    project = f"{console_url}/projects/{quote(project_name, safe='')}"
    pages = {"project": project}
    if dataset_type:
        pages["dataset"] = f"{project}/datasets/{dataset_type}"
    if model_version:
        pages["model"] = f"{project}/models/{model_version}"
        pages["evaluation"] = f"{pages['model']}/evaluation"
    if results_s3_uri:
        pages["verdicts"] = f"{console_url}/review?results={quote(results_s3_uri, safe='')}"
    return pages
