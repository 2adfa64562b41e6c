"""Arrays in files, known by the hash of their bytes, in a folder of the database's own."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REFERRING = ("checkpoint", "measurement_vector", "trial_vector")


def upgrade() -> None:
    identity = op.create_table(
        "identity",
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_identity"),
    )
    op.bulk_insert(identity, [{"key": uuid4().hex}])
    op.create_table(
        "artifact",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_artifact"),
    )
    for table in REFERRING:
        with op.batch_alter_table(table) as batch:
            batch.alter_column("data", existing_type=sa.LargeBinary(), nullable=True)
            batch.add_column(sa.Column("artifact", sa.Text(), nullable=True))
            batch.create_foreign_key(f"fk_{table}_artifact", "artifact", ["artifact"], ["hash"])
            batch.create_index(f"ix_{table}_artifact", ["artifact"])


def downgrade() -> None:
    for table in REFERRING:
        with op.batch_alter_table(table) as batch:
            batch.drop_index(f"ix_{table}_artifact")
            batch.drop_constraint(f"fk_{table}_artifact", type_="foreignkey")
            batch.drop_column("artifact")
            # refused while there are arrays in files, which would be lost
            batch.alter_column("data", existing_type=sa.LargeBinary(), nullable=False)
    op.drop_table("artifact")
    op.drop_table("identity")
