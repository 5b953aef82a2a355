"""The drop-in service: the Lookout for Vision API, answered here. Never imports airflow."""
