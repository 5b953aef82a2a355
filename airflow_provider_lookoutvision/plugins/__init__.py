"""The plugin of Airflow's own UI."""
