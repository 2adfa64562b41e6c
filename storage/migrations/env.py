"""Run by Alembic: migrates over the connection, and in the transaction, that it is handed."""

from alembic import context

from bitfront.storage.models import Table

options = context.config.attributes
context.configure(
    connection=options["connection"],
    version_table=options["version_table"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
