"""The way over: into a service what was saved elsewhere, out of it its projects, and what is in the way.

Clients of the service, through its API and S3 alone. They run where Airflow is, and where it isn't.
"""
