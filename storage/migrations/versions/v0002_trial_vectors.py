"""Per-sample arrays of trials."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trial_vector",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_vector_trial"),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_trial_vector"),
    )


def downgrade() -> None:
    op.drop_table("trial_vector")
