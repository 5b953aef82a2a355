"""Amazon Lookout for Vision for Apache Airflow, and a service that speaks its API."""

__version__ = "0.1.0"
