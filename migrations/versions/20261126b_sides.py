"""The side on which each person saw the candidates of an item."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('comparisons', sa.Column('mirrored', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('leases', sa.Column('mirrored', sa.Boolean(), server_default=sa.text('false'), nullable=False))


def downgrade() -> None:
    op.drop_column('leases', 'mirrored')
    op.drop_column('comparisons', 'mirrored')
