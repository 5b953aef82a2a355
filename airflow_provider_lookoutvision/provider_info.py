"""The provider's description for Airflow's provider manager."""

from __future__ import annotations

from typing import Any


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
                "external-doc-url": "https://docs.aws.amazon.com/lookout-for-vision/",
                "tags": ["aws"],
            }
        ],
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
        "asset-uris": asset_uris,
        "dataset-uris": asset_uris,  # as Airflow 2 calls them
    }
