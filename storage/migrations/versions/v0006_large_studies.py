"""Figures indexed by study, counts, and which trials changed since when."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FIGURES = (  # table, its name column, what it is of
    ("measurement_value", "metric", "measurement"),
    ("trial_cost", "resource", "trial"),
    ("trial_metric", "metric", "trial"),
)


def upgrade() -> None:
    op.create_table(
        "trial_tally",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_trial_tally_study"),
        sa.PrimaryKeyConstraint("study_id", name="pk_trial_tally"),
    )
    op.create_table(
        "measurement_tally",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("profiler", sa.Text(), nullable=False),
        sa.Column("measurements", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_measurement_tally_study"),
        sa.PrimaryKeyConstraint("study_id", "profiler", name="pk_measurement_tally"),
    )
    op.execute("INSERT INTO trial_tally SELECT study_id, count(*), 0 FROM trial GROUP BY study_id")
    op.execute(
        "INSERT INTO measurement_tally "
        "SELECT study_id, profiler, count(*) FROM measurement GROUP BY study_id, profiler"
    )
    for column in (
        sa.Column("quantized", sa.Integer(), server_default="0", nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
    ):
        op.add_column("trial", column)
    op.execute(
        "UPDATE trial SET quantized = "
        "(SELECT count(*) FROM trial_layer WHERE trial_id = trial.id AND scheme <> 'keep')"
    )
    op.create_index("ix_trial_study_id_revision", "trial", ["study_id", "revision"])
    op.create_index("ix_measurement_study_id_id", "measurement", ["study_id", "id"], unique=True)
    for table, name, owner in FIGURES:
        op.drop_index(f"ix_{table}_{name}_value", table)
        op.add_column(table, sa.Column("study_id", sa.Integer(), nullable=True))
        op.execute(
            f"UPDATE {table} SET study_id = "
            f"(SELECT study_id FROM {owner} WHERE {owner}.id = {table}.{owner}_id)"
        )
        with op.batch_alter_table(table) as batch:
            batch.alter_column("study_id", existing_type=sa.Integer(), nullable=False)
            batch.drop_constraint(f"fk_{table}_{owner}", type_="foreignkey")
            batch.create_foreign_key(
                f"fk_{table}_{owner}", owner, ["study_id", f"{owner}_id"], ["study_id", "id"]
            )
        columns = ["study_id", name, "value", f"{owner}_id"]
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def downgrade() -> None:
    for table, name, owner in FIGURES:
        op.drop_index(f"ix_{table}_study_id_{name}_value_{owner}_id", table)
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"fk_{table}_{owner}", type_="foreignkey")
            batch.create_foreign_key(f"fk_{table}_{owner}", owner, [f"{owner}_id"], ["id"])
            batch.drop_column("study_id")
        op.create_index(f"ix_{table}_{name}_value", table, [name, "value"])
    op.drop_index("ix_measurement_study_id_id", "measurement")
    op.drop_index("ix_trial_study_id_revision", "trial")
    op.drop_column("trial", "revision")
    op.drop_column("trial", "quantized")
    op.drop_table("measurement_tally")
    op.drop_table("trial_tally")
