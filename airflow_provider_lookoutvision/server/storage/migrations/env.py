"""Run the migrations on the connection, and in the transaction, that ``Database.upgrade`` hands over."""

from alembic import context

from airflow_provider_lookoutvision.server.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll back DDL too, once the driver's own transactions are off (see database.py).
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
