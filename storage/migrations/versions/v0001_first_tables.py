"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("pass_key", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_checkpoint_study"),
        sa.PrimaryKeyConstraint("study_id", "pass_key", "position", name="pk_checkpoint"),
    )
    op.create_table(
        "measurement",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("profiler", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_measurement_study"),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
        sa.UniqueConstraint(
            "study_id",
            "profiler",
            "settings",
            "layer",
            "scheme",
            name="uq_measurement_study_id_profiler_settings_layer_scheme",
        ),
    )
    op.create_table(
        "trial",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("measured_by", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("solver", sa.Text(), nullable=False),
        sa.Column("predicted", sa.Double(), nullable=True),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_trial_study"),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("study_id", "id", name="uq_trial_study_id_id"),
        sa.UniqueConstraint(
            "study_id", "key", "measured_by", name="uq_trial_study_id_key_measured_by"
        ),
    )
    op.create_table(
        "export",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("audit", sa.JSON(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "trial_id"], ["trial.study_id", "trial.id"], name="fk_export_trial"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_export"),
    )
    op.create_index("ix_export_study_id", "export", ["study_id"])
    op.create_table(
        "measurement_value",
        sa.Column("measurement_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.id"], name="fk_measurement_value_measurement"
        ),
        sa.PrimaryKeyConstraint("measurement_id", "metric", name="pk_measurement_value"),
    )
    op.create_index("ix_measurement_value_metric_value", "measurement_value", ["metric", "value"])
    op.create_table(
        "measurement_vector",
        sa.Column("measurement_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.id"], name="fk_measurement_vector_measurement"
        ),
        sa.PrimaryKeyConstraint("measurement_id", "name", name="pk_measurement_vector"),
    )
    op.create_table(
        "selection",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("request_key", sa.Text(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "trial_id"], ["trial.study_id", "trial.id"], name="fk_selection_trial"
        ),
        sa.PrimaryKeyConstraint("study_id", "request_key", name="pk_selection"),
    )
    op.create_table(
        "trial_cost",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_cost_trial"),
        sa.PrimaryKeyConstraint("trial_id", "resource", name="pk_trial_cost"),
    )
    op.create_index("ix_trial_cost_resource_value", "trial_cost", ["resource", "value"])
    op.create_table(
        "trial_layer",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_layer_trial"),
        sa.PrimaryKeyConstraint("trial_id", "position", name="pk_trial_layer"),
    )
    op.create_table(
        "trial_metric",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_metric_trial"),
        sa.PrimaryKeyConstraint("trial_id", "metric", name="pk_trial_metric"),
    )
    op.create_index("ix_trial_metric_metric_value", "trial_metric", ["metric", "value"])


def downgrade() -> None:
    op.drop_table("trial_metric")
    op.drop_table("trial_layer")
    op.drop_table("trial_cost")
    op.drop_table("selection")
    op.drop_table("measurement_vector")
    op.drop_table("measurement_value")
    op.drop_table("export")
    op.drop_table("trial")
    op.drop_table("measurement")
    op.drop_table("checkpoint")
    op.drop_table("study")
