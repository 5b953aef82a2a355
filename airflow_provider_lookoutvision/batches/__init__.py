"""A batch of images below an S3 prefix: what a task and a job on a cluster share, which process one.

Nothing here imports Airflow, the service or the engine.
"""
