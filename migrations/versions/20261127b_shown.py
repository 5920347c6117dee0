"""Where each reply of a ranking stood when its person saw it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('ranking_places', sa.Column('shown', sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column('ranking_places', 'shown')
