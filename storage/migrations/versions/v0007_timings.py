"""Kernels timed on targets."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

KEY = ("target", "runtime", "device", "threads", "kernel", "scheme")


def upgrade() -> None:
    op.create_table(
        "timing",
        sa.Column("id", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.Integer() if name == "threads" else sa.Text(), nullable=False)
            for name in KEY
        ),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("spread", sa.Double(), nullable=False),
        sa.Column("repeats", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_timing"),
        sa.UniqueConstraint(*KEY, name=f"uq_timing_{'_'.join(KEY)}"),
    )


def downgrade() -> None:
    op.drop_table("timing")
