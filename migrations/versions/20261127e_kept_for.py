"""Items for named people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('turns', sa.Column('kept_for', sa.ARRAY(sa.BigInteger()), nullable=True))
    op.create_check_constraint(op.f('ck_turns_kept_for_somebody'), 'turns', 'cardinality(kept_for) > 0')


def downgrade() -> None:
    op.drop_constraint(op.f('ck_turns_kept_for_somebody'), 'turns')
    op.drop_column('turns', 'kept_for')
