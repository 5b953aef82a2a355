"""The operators. Import them from here.

Each makes its change exactly once for a task instance, however often Airflow retries it: its calls carry the
client token of :mod:`airflow_provider_lookoutvision.idempotency`. An error that a retry would meet again
fails the task at once; any other is left to Airflow's retries.
"""

from __future__ import annotations

from airflow_provider_lookoutvision.operators.datasets import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionDeleteDatasetOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.operators.detection import LookoutVisionDetectAnomaliesOperator
from airflow_provider_lookoutvision.operators.hosting import (
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)
from airflow_provider_lookoutvision.operators.importing import LookoutVisionImportDatasetsOperator
from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator
from airflow_provider_lookoutvision.operators.models import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteModelOperator,
)
from airflow_provider_lookoutvision.operators.packaging import LookoutVisionStartModelPackagingJobOperator
from airflow_provider_lookoutvision.operators.projects import (
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)
from airflow_provider_lookoutvision.operators.promotion import LookoutVisionPromoteModelOperator
from airflow_provider_lookoutvision.operators.thresholds import LookoutVisionSetThresholdOperator

__all__ = [
    "LookoutVisionBuildManifestOperator",
    "LookoutVisionCreateDatasetOperator",
    "LookoutVisionCreateModelOperator",
    "LookoutVisionCreateProjectOperator",
    "LookoutVisionDeleteDatasetOperator",
    "LookoutVisionDeleteModelOperator",
    "LookoutVisionDeleteProjectOperator",
    "LookoutVisionDetectAnomaliesOperator",
    "LookoutVisionImportDatasetsOperator",
    "LookoutVisionPromoteModelOperator",
    "LookoutVisionSetThresholdOperator",
    "LookoutVisionStartModelOperator",
    "LookoutVisionStartModelPackagingJobOperator",
    "LookoutVisionStopModelOperator",
    "LookoutVisionUpdateDatasetEntriesOperator",
]
