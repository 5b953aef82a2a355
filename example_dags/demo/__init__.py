"""The demo: an example DAG in a real Airflow, against a real service, with faults between them.

``make demo`` runs it, or ``python -m example_dags.demo`` in the repository's folder. Everything that it makes
is in a temporary folder, which is gone at the end. Airflow doesn't look in here for DAGs: see
``.airflowignore``.
"""
