"""Snapshots that answer with the best of k replies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('snapshots', sa.Column('draws_from_id', sa.BigInteger(), nullable=True))
    op.add_column('snapshots', sa.Column('scored_by_id', sa.BigInteger(), nullable=True))
    op.add_column('snapshots', sa.Column('k', sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f('fk_snapshots_draws_from_id_snapshots'), 'snapshots', 'snapshots', ['draws_from_id'], ['id'])
    op.create_foreign_key(op.f('fk_snapshots_scored_by_id_snapshots'), 'snapshots', 'snapshots', ['scored_by_id'], ['id'])
    op.drop_constraint(op.f('ck_snapshots_local_has_path'), 'snapshots')
    op.create_check_constraint(op.f('ck_snapshots_local_has_path'), 'snapshots', "backend <> 'local' OR origin = 'best_of' OR path IS NOT NULL")
    op.create_check_constraint(op.f('ck_snapshots_best_of_whole'), 'snapshots', "num_nonnulls(draws_from_id, scored_by_id, k) = CASE WHEN origin = 'best_of' THEN 3 ELSE 0 END")
    op.create_check_constraint(op.f('ck_snapshots_best_of_is_policy'), 'snapshots', "origin <> 'best_of' OR (kind = 'policy' AND backend = 'local' AND path IS NULL)")
    op.create_check_constraint(op.f('ck_snapshots_k_within'), 'snapshots', 'k BETWEEN 2 AND 64')


def downgrade() -> None:
    op.drop_constraint(op.f('ck_snapshots_k_within'), 'snapshots')
    op.drop_constraint(op.f('ck_snapshots_best_of_is_policy'), 'snapshots')
    op.drop_constraint(op.f('ck_snapshots_best_of_whole'), 'snapshots')
    # Candidates refer to these rows. Without files or hashes none can be loaded, so that none answers as the plain policy.
    op.execute("UPDATE snapshots SET origin = 'registered', path = 'snapshots/' || name WHERE origin = 'best_of'")
    op.drop_constraint(op.f('ck_snapshots_local_has_path'), 'snapshots')
    op.create_check_constraint(op.f('ck_snapshots_local_has_path'), 'snapshots', "backend <> 'local' OR path IS NOT NULL")
    op.drop_constraint(op.f('fk_snapshots_scored_by_id_snapshots'), 'snapshots')
    op.drop_constraint(op.f('fk_snapshots_draws_from_id_snapshots'), 'snapshots')
    op.drop_column('snapshots', 'k')
    op.drop_column('snapshots', 'scored_by_id')
    op.drop_column('snapshots', 'draws_from_id')
