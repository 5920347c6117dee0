"""Payrolls; how many notices of a person are unread; indexes of what a person's own page counts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('payrolls',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('currency', sa.Text(), nullable=False),
    sa.Column('since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('entries', sa.BigInteger(), nullable=False),
    sa.Column('total', sa.Numeric(precision=12, scale=2), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f('ck_payrolls_currency_shape')),
    sa.CheckConstraint('entries > 0', name=op.f('ck_payrolls_entries_positive')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_payrolls_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_payrolls')),
    sa.UniqueConstraint('created_by_id', 'idempotency_key', name=op.f('uq_payrolls_created_by_id_idempotency_key'))
    )
    op.add_column('ledger_entries', sa.Column('payroll_id', sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f('fk_ledger_entries_payroll_id_payrolls'), 'ledger_entries', 'payrolls', ['payroll_id'], ['id'])
    op.create_index('ix_ledger_entries_payroll_id', 'ledger_entries', ['payroll_id'], unique=False)
    op.create_check_constraint(op.f('ck_ledger_entries_paid_in_a_payroll'), 'ledger_entries', "(status = 'paid') = (payroll_id IS NOT NULL)")
    op.add_column('people', sa.Column('unread_notices', sa.BigInteger(), server_default=sa.text('0'), nullable=False))
    op.create_check_constraint(op.f('ck_people_unread_notices_not_negative'), 'people', 'unread_notices >= 0')
    op.add_column('notices', sa.Column('idempotency_key', sa.Text(), nullable=True))
    op.create_unique_constraint(op.f('uq_notices_person_id_idempotency_key'), 'notices', ['person_id', 'idempotency_key'])
    op.create_index('ix_work_sessions_person_id_started_at', 'work_sessions', ['person_id', 'started_at'], unique=False)
    op.create_index('ix_skips_person_id', 'skips', ['person_id'], unique=False)
    op.create_index('ix_reports_person_id', 'reports', ['person_id'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_reports_person_id', table_name='reports')
    op.drop_index('ix_skips_person_id', table_name='skips')
    op.drop_index('ix_work_sessions_person_id_started_at', table_name='work_sessions')
    op.drop_constraint(op.f('uq_notices_person_id_idempotency_key'), 'notices')
    op.drop_column('notices', 'idempotency_key')
    op.drop_constraint(op.f('ck_people_unread_notices_not_negative'), 'people')
    op.drop_column('people', 'unread_notices')
    op.drop_constraint(op.f('ck_ledger_entries_paid_in_a_payroll'), 'ledger_entries')
    op.drop_column('ledger_entries', 'payroll_id')
    op.drop_table('payrolls')
