"""The provider's description for Airflow's provider manager."""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE_NAME = "lookoutvision"
HOOK = "airflow_provider_lookoutvision.hooks.lookoutvision.LookoutVisionHook"
HOME_PAGE = "https://pypi.org/project/airflow-provider-lookoutvision/"


def _field(label: str, description: str, kind: str = "string", default: Any = None) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": [kind, "null"], "default": default},
    }


# What Airflow from 3.2 on makes the connection's form of; the hook has the same for others.
CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": CONNECTION_TYPE_NAME,
    "hook-class-name": HOOK,
    "hook-name": "Lookout for Vision",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "schema", "port"],
        "relabeling": {"login": "Access key ID", "password": "Secret access key"},
        "placeholders": {"login": "AKIA...", "password": "both are in <data-dir>/credentials"},
    },
    "conn-fields": {
        "endpoint_url": _field("Endpoint", "The service's URL, such as http://127.0.0.1:8320."),
        "region_name": _field(
            "Region", "Resources of different regions don't see each other.", default="us-east-1"
        ),
        "s3_endpoint_url": _field(
            "S3 endpoint", "Where images and manifests are; empty if the service is its own S3."
        ),
        "client_token_namespace": _field(
            "Client token namespace", "Distinguishes Airflows that run the same DAGs on one account."
        ),
        "requests_per_second": _field(
            "Requests per second",
            "How often a triggerer's waits poll each operation; 5 by default.",
            "number",
        ),
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, as Airflow's ``provider_info.schema.json`` has it."""
    name = "Amazon Lookout for Vision"
    asset_uris = [
        {
            "schemes": ["lookoutvision"],
            "handler": None,
            "to_openlineage_converter": "airflow_provider_lookoutvision.lineage.asset_to_openlineage",
        }
    ]
    return {
        "package-name": "airflow-provider-lookoutvision",
        "name": name,
        "description": "Amazon Lookout for Vision: hook, operators, sensors and triggers.",
        "integrations": [
            {
                "integration-name": name,
                "external-doc-url": HOME_PAGE,
                "how-to-guide": [
                    f"/docs/{name}.md"
                    for name in ("operators", "projects", "datasets", "models", "connection")
                ],
                "tags": ["aws"],
            }
        ],
        "connection-types": [CONNECTION_TYPE],
        "hook-class-names": [HOOK],
        "hooks": [
            {
                "integration-name": name,
                "python-modules": ["airflow_provider_lookoutvision.hooks.lookoutvision"],
            }
        ],
        "operators": [
            {
                "integration-name": name,
                "python-modules": ["airflow_provider_lookoutvision.operators.lookoutvision"],
            }
        ],
        "sensors": [
            {
                "integration-name": name,
                "python-modules": ["airflow_provider_lookoutvision.sensors.lookoutvision"],
            }
        ],
        "triggers": [
            {
                "integration-name": name,
                "python-modules": ["airflow_provider_lookoutvision.triggers.lookoutvision"],
            }
        ],
        "extra-links": [
            f"airflow_provider_lookoutvision.links.lookoutvision.LookoutVision{page}Link"
            for page in ("Project", "Dataset", "Model", "Evaluation", "Verdicts")
        ],
        "asset-uris": asset_uris,
        "dataset-uris": asset_uris,  # as Airflow 2 calls them
    }
