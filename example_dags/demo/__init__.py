"""The demo: example DAGs in a real Airflow, against a real service, with faults between them.

``make demo`` runs it, or ``python -m example_dags.demo`` in the repository's folder. What it works with is in
a temporary folder, which is gone at the end; what it found stays in ``build/demo``. Airflow doesn't look in
here for DAGs: see ``.airflowignore``.
"""
