"""Messages of panels say what they are about and when they were sent: they come in any order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('webhook_events', sa.Column('resource', sa.Text(), nullable=True))
    op.add_column('webhook_events', sa.Column('status', sa.Text(), nullable=True))
    # Nothing wrote to this table before.
    op.add_column('webhook_events', sa.Column('sent_at', sa.DateTime(timezone=True), nullable=False))
    op.create_index('ix_webhook_events_panel_id_resource', 'webhook_events', ['panel_id', 'resource'])


def downgrade() -> None:
    op.drop_index('ix_webhook_events_panel_id_resource', table_name='webhook_events')
    op.drop_column('webhook_events', 'sent_at')
    op.drop_column('webhook_events', 'status')
    op.drop_column('webhook_events', 'resource')
