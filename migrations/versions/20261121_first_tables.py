"""The first tables: people, campaigns, dialogue, feedback, registry, rounds, jobs, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('people',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('email', sa.Text(), nullable=True),
    sa.Column('password_hash', sa.Text(), nullable=True),
    sa.Column('roles', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('simulated', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('disabled_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("roles <@ ARRAY['crowdworker','researcher','admin'] AND cardinality(roles) > 0", name=op.f('ck_people_roles_known')),
    sa.CheckConstraint('char_length(name) BETWEEN 1 AND 200', name=op.f('ck_people_name_length')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_people'))
    )
    op.create_index('uq_people_email_lower', 'people', [sa.literal_column('lower(email)')], unique=True)
    op.create_table('audit_entries',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('object_type', sa.Text(), nullable=False),
    sa.Column('object_id', sa.BigInteger(), nullable=True),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_audit_entries_person_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_entries'))
    )
    op.create_index('ix_audit_entries_created_at', 'audit_entries', ['created_at'], unique=False)
    op.create_table('campaigns',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('slug', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'open'"), nullable=False),
    sa.Column('continuation', sa.Text(), server_default=sa.text("'chosen'"), nullable=False),
    sa.Column('grades', sa.BigInteger(), server_default=sa.text('4'), nullable=False),
    sa.Column('overlap', sa.BigInteger(), server_default=sa.text('1'), nullable=False),
    sa.Column('quota', sa.BigInteger(), nullable=True),
    sa.Column('pay_per_hour', sa.Numeric(precision=8, scale=2), nullable=True),
    sa.Column('temperature', sa.Double(), server_default=sa.text('1.0'), nullable=False),
    sa.Column('top_p', sa.Double(), server_default=sa.text('1.0'), nullable=False),
    sa.Column('max_new_tokens', sa.BigInteger(), server_default=sa.text('128'), nullable=False),
    sa.Column('max_turns', sa.BigInteger(), server_default=sa.text('4'), nullable=False),
    sa.Column('max_message_chars', sa.BigInteger(), server_default=sa.text('8000'), nullable=False),
    sa.Column('lease_minutes', sa.BigInteger(), server_default=sa.text('60'), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("continuation IN ('chosen','less_harmful','random')", name=op.f('ck_campaigns_continuation_known')),
    sa.CheckConstraint("mode IN ('helpful','red_team')", name=op.f('ck_campaigns_mode_known')),
    sa.CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name=op.f('ck_campaigns_slug_shape')),
    sa.CheckConstraint("status IN ('open','paused','closed')", name=op.f('ck_campaigns_status_known')),
    sa.CheckConstraint('grades BETWEEN 1 AND 4', name=op.f('ck_campaigns_grades_range')),
    sa.CheckConstraint('lease_minutes BETWEEN 1 AND 1440', name=op.f('ck_campaigns_lease_minutes_range')),
    sa.CheckConstraint('max_message_chars BETWEEN 1 AND 100000', name=op.f('ck_campaigns_max_message_chars_range')),
    sa.CheckConstraint('max_new_tokens BETWEEN 1 AND 4096', name=op.f('ck_campaigns_max_new_tokens_range')),
    sa.CheckConstraint('max_turns BETWEEN 1 AND 100', name=op.f('ck_campaigns_max_turns_range')),
    sa.CheckConstraint('overlap BETWEEN 1 AND 20', name=op.f('ck_campaigns_overlap_range')),
    sa.CheckConstraint('quota IS NULL OR quota > 0', name=op.f('ck_campaigns_quota_positive')),
    sa.CheckConstraint('temperature > 0 AND temperature <= 2', name=op.f('ck_campaigns_temperature_range')),
    sa.CheckConstraint('top_p > 0 AND top_p <= 1', name=op.f('ck_campaigns_top_p_range')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_campaigns_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_campaigns')),
    sa.UniqueConstraint('slug', name=op.f('uq_campaigns_slug'))
    )
    op.create_table('dataset_versions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False),
    sa.Column('selection', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('counts', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_dataset_versions_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_dataset_versions'))
    )
    op.create_table('drafts',
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('place', sa.Text(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('char_length(text) <= 200000', name=op.f('ck_drafts_text_length')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_drafts_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('person_id', 'place', name=op.f('pk_drafts'))
    )
    op.create_table('invitations',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('token_hash', sa.Text(), nullable=False),
    sa.Column('roles', postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column('note', sa.Text(), server_default=sa.text("''"), nullable=False),
    sa.Column('max_uses', sa.BigInteger(), server_default=sa.text('1'), nullable=False),
    sa.Column('uses', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("roles <@ ARRAY['crowdworker','researcher','admin'] AND cardinality(roles) > 0", name=op.f('ck_invitations_roles_known')),
    sa.CheckConstraint('uses BETWEEN 0 AND max_uses', name=op.f('ck_invitations_uses_within_max')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_invitations_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_invitations')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_invitations_token_hash'))
    )
    op.create_table('jobs',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'queued'"), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('progress', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('result', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('claimed_by', sa.Text(), nullable=True),
    sa.Column('heartbeat_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind IN ('import','export')", name=op.f('ck_jobs_kind_known')),
    sa.CheckConstraint("status IN ('queued','running','done','failed')", name=op.f('ck_jobs_status_known')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_jobs_person_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs'))
    )
    op.create_table('login_sessions',
    sa.Column('token_hash', sa.Text(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('csrf_token', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_login_sessions_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('token_hash', name=op.f('pk_login_sessions'))
    )
    op.create_index(op.f('ix_login_sessions_person_id'), 'login_sessions', ['person_id'], unique=False)
    op.create_table('schedules',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('cron', sa.Text(), nullable=False),
    sa.Column('time_zone', sa.Text(), nullable=False),
    sa.Column('minimum_new_comparisons', sa.BigInteger(), nullable=False),
    sa.Column('enabled', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('next_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_outcome', sa.Text(), nullable=True),
    sa.Column('updated_by_id', sa.BigInteger(), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('minimum_new_comparisons >= 0', name=op.f('ck_schedules_minimum_not_negative')),
    sa.ForeignKeyConstraint(['updated_by_id'], ['people.id'], name=op.f('fk_schedules_updated_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_schedules'))
    )
    op.create_table('sign_in_links',
    sa.Column('token_hash', sa.Text(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_sign_in_links_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('token_hash', name=op.f('pk_sign_in_links'))
    )
    op.create_table('deployments',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('replaced_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_deployments_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_deployments_created_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name='fk_deployments_round_id_rounds', use_alter=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deployments'))
    )
    op.create_index('ix_deployments_campaign_id_id', 'deployments', ['campaign_id', 'id'], unique=False)
    op.create_index('uq_deployments_current', 'deployments', ['campaign_id'], unique=True, postgresql_where=sa.text('replaced_at IS NULL'))
    op.create_table('instructions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('markdown', sa.Text(), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_instructions_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_instructions_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_instructions')),
    sa.UniqueConstraint('campaign_id', 'version', name=op.f('uq_instructions_campaign_id_version')),
    sa.UniqueConstraint('id', 'campaign_id', name=op.f('uq_instructions_id_campaign_id'))
    )
    op.create_table('prompts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('split', sa.Text(), server_default=sa.text("'train'"), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("split IN ('train','held_out')", name=op.f('ck_prompts_split_known')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_prompts_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_prompts')),
    sa.UniqueConstraint('campaign_id', 'text', name=op.f('uq_prompts_campaign_id_text'))
    )
    op.create_table('runs',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('job', sa.Text(), nullable=False),
    sa.Column('folder', sa.Text(), nullable=False),
    sa.Column('config', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'queued'"), nullable=False),
    sa.Column('progress', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('result', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("job IN ('preference','policy','evaluate')", name=op.f('ck_runs_job_known')),
    sa.CheckConstraint("status IN ('queued','running','done','failed','cancelled')", name=op.f('ck_runs_status_known')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_runs_dataset_version_id_dataset_versions')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_runs'))
    )
    op.create_table('conversations',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('prompt_id', sa.BigInteger(), nullable=True),
    sa.Column('import_id', sa.BigInteger(), nullable=True),
    sa.Column('source', sa.Text(), server_default=sa.text("'chat'"), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'open'"), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("source = 'import' OR person_id IS NOT NULL", name=op.f('ck_conversations_chat_has_person')),
    sa.CheckConstraint("source IN ('chat','import')", name=op.f('ck_conversations_source_known')),
    sa.CheckConstraint("status IN ('open','finished','abandoned')", name=op.f('ck_conversations_status_known')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_conversations_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['import_id'], ['jobs.id'], name=op.f('fk_conversations_import_id_jobs')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_conversations_person_id_people')),
    sa.ForeignKeyConstraint(['prompt_id'], ['prompts.id'], name=op.f('fk_conversations_prompt_id_prompts'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_conversations'))
    )
    op.create_index('ix_conversations_campaign_id_id', 'conversations', ['campaign_id', 'id'], unique=False)
    op.create_index(op.f('ix_conversations_import_id'), 'conversations', ['import_id'], unique=False)
    op.create_index(op.f('ix_conversations_person_id'), 'conversations', ['person_id'], unique=False)
    op.create_index('uq_conversations_open', 'conversations', ['person_id', 'campaign_id'], unique=True, postgresql_where=sa.text("status = 'open' AND source = 'chat'"))
    op.create_table('snapshots',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('backend', sa.Text(), server_default=sa.text("'local'"), nullable=False),
    sa.Column('origin', sa.Text(), nullable=False),
    sa.Column('path', sa.Text(), nullable=True),
    sa.Column('endpoint', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('manifest', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('parent_id', sa.BigInteger(), nullable=True),
    sa.Column('run_id', sa.BigInteger(), nullable=True),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('retired_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("backend <> 'local' OR path IS NOT NULL", name=op.f('ck_snapshots_local_has_path')),
    sa.CheckConstraint("backend <> 'openai' OR endpoint IS NOT NULL", name=op.f('ck_snapshots_openai_has_endpoint')),
    sa.CheckConstraint("backend IN ('local','openai')", name=op.f('ck_snapshots_backend_known')),
    sa.CheckConstraint("kind IN ('policy','pm')", name=op.f('ck_snapshots_kind_known')),
    sa.CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f('ck_snapshots_name_shape')),
    sa.CheckConstraint("origin IN ('initial','round','best_of','registered')", name=op.f('ck_snapshots_origin_known')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_snapshots_dataset_version_id_dataset_versions')),
    sa.ForeignKeyConstraint(['parent_id'], ['snapshots.id'], name=op.f('fk_snapshots_parent_id_snapshots')),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name='fk_snapshots_round_id_rounds', use_alter=True),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_snapshots_run_id_runs')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_snapshots')),
    sa.UniqueConstraint('name', name=op.f('uq_snapshots_name'))
    )
    op.create_table('deployment_shares',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('deployment_id', sa.BigInteger(), nullable=False),
    sa.Column('snapshot_id', sa.BigInteger(), nullable=False),
    sa.Column('share', sa.Double(), nullable=False),
    sa.CheckConstraint('share > 0', name=op.f('ck_deployment_shares_share_positive')),
    sa.ForeignKeyConstraint(['deployment_id'], ['deployments.id'], name=op.f('fk_deployment_shares_deployment_id_deployments'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['snapshot_id'], ['snapshots.id'], name=op.f('fk_deployment_shares_snapshot_id_snapshots')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deployment_shares')),
    sa.UniqueConstraint('deployment_id', 'snapshot_id', name=op.f('uq_deployment_shares_deployment_id_snapshot_id'))
    )
    op.create_table('rounds',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('number', sa.BigInteger(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'queued'"), nullable=False),
    sa.Column('trigger', sa.Text(), nullable=False),
    sa.Column('started_by_id', sa.BigInteger(), nullable=True),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('initial_snapshot_id', sa.BigInteger(), nullable=False),
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=True),
    sa.Column('pm_snapshot_id', sa.BigInteger(), nullable=True),
    sa.Column('policy_snapshot_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("status IN ('queued','running','held','failed','done','cancelled')", name=op.f('ck_rounds_status_known')),
    sa.CheckConstraint("trigger IN ('person','schedule','command')", name=op.f('ck_rounds_trigger_known')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_rounds_dataset_version_id_dataset_versions')),
    sa.ForeignKeyConstraint(['initial_snapshot_id'], ['snapshots.id'], name=op.f('fk_rounds_initial_snapshot_id_snapshots')),
    sa.ForeignKeyConstraint(['pm_snapshot_id'], ['snapshots.id'], name=op.f('fk_rounds_pm_snapshot_id_snapshots')),
    sa.ForeignKeyConstraint(['policy_snapshot_id'], ['snapshots.id'], name=op.f('fk_rounds_policy_snapshot_id_snapshots')),
    sa.ForeignKeyConstraint(['started_by_id'], ['people.id'], name=op.f('fk_rounds_started_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_rounds')),
    sa.UniqueConstraint('number', name=op.f('uq_rounds_number'))
    )
    op.create_index('uq_rounds_active', 'rounds', [sa.literal_column('(true)')], unique=True, postgresql_where=sa.text("status IN ('queued','running','held')"))
    op.create_table('turns',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('conversation_id', sa.BigInteger(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'sampling'"), nullable=False),
    sa.Column('continued_by_id', sa.BigInteger(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=False),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('ready_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("status IN ('sampling','ready','compared','failed')", name=op.f('ck_turns_status_known')),
    sa.CheckConstraint('char_length(message) > 0', name=op.f('ck_turns_message_not_empty')),
    sa.ForeignKeyConstraint(['continued_by_id'], ['candidates.id'], name='fk_turns_continued_by_id_candidates', use_alter=True),
    sa.ForeignKeyConstraint(['conversation_id'], ['conversations.id'], name=op.f('fk_turns_conversation_id_conversations'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_turns')),
    sa.UniqueConstraint('conversation_id', 'idempotency_key', name=op.f('uq_turns_conversation_id_idempotency_key')),
    sa.UniqueConstraint('conversation_id', 'position', name=op.f('uq_turns_conversation_id_position'))
    )
    op.create_index('ix_turns_sampling', 'turns', ['id'], unique=False, postgresql_where=sa.text("status = 'sampling'"))
    op.create_table('candidates',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('snapshot_id', sa.BigInteger(), nullable=True),
    sa.Column('status', sa.Text(), server_default=sa.text("'queued'"), nullable=False),
    sa.Column('text', sa.Text(), nullable=True),
    sa.Column('seed', sa.BigInteger(), nullable=True),
    sa.Column('sampling', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('log_probability', sa.Double(), nullable=True),
    sa.Column('token_count', sa.Integer(), nullable=True),
    sa.Column('finish_reason', sa.Text(), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('claimed_by', sa.Text(), nullable=True),
    sa.Column('heartbeat_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("status <> 'done' OR text IS NOT NULL", name=op.f('ck_candidates_done_has_text')),
    sa.CheckConstraint("status IN ('queued','sampling','done','failed')", name=op.f('ck_candidates_status_known')),
    sa.CheckConstraint('position >= 0', name=op.f('ck_candidates_position_not_negative')),
    sa.ForeignKeyConstraint(['snapshot_id'], ['snapshots.id'], name=op.f('fk_candidates_snapshot_id_snapshots')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_candidates_turn_id_turns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_candidates')),
    sa.UniqueConstraint('id', 'turn_id', name=op.f('uq_candidates_id_turn_id')),
    sa.UniqueConstraint('turn_id', 'position', deferrable=True, initially='DEFERRED', name=op.f('uq_candidates_turn_id_position'))
    )
    op.create_index('ix_candidates_snapshot_id', 'candidates', ['snapshot_id'], unique=False)
    op.create_index('ix_candidates_waiting', 'candidates', ['id'], unique=False, postgresql_where=sa.text("status IN ('queued','sampling')"))
    op.create_table('leases',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('conversation_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('released_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['conversation_id'], ['conversations.id'], name=op.f('fk_leases_conversation_id_conversations'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_leases_person_id_people'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_leases_turn_id_turns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_leases')),
    sa.UniqueConstraint('person_id', 'conversation_id', 'turn_id', name=op.f('uq_leases_person_id_conversation_id_turn_id'), postgresql_nulls_not_distinct=True)
    )
    op.create_index('ix_leases_turn_id', 'leases', ['turn_id'], unique=False, postgresql_where=sa.text('released_at IS NULL'))
    op.create_table('round_steps',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('claimed_by', sa.Text(), nullable=True),
    sa.Column('heartbeat_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('run_id', sa.BigInteger(), nullable=True),
    sa.Column('progress', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('gates', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('released_by_id', sa.BigInteger(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("name IN ('freeze','pm','pm_checks','policy','policy_checks','register','deploy')", name=op.f('ck_round_steps_name_known')),
    sa.CheckConstraint("status IN ('waiting','queued','running','held','failed','done')", name=op.f('ck_round_steps_status_known')),
    sa.ForeignKeyConstraint(['released_by_id'], ['people.id'], name=op.f('fk_round_steps_released_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name=op.f('fk_round_steps_round_id_rounds'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_round_steps_run_id_runs')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_round_steps')),
    sa.UniqueConstraint('round_id', 'name', name=op.f('uq_round_steps_round_id_name')),
    sa.UniqueConstraint('round_id', 'position', name=op.f('uq_round_steps_round_id_position'))
    )
    op.create_table('comparisons',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('picked_id', sa.BigInteger(), nullable=False),
    sa.Column('chosen_id', sa.BigInteger(), nullable=False),
    sa.Column('rejected_id', sa.BigInteger(), nullable=False),
    sa.Column('scale_position', sa.Integer(), nullable=True),
    sa.Column('strength', sa.Integer(), nullable=True),
    sa.Column('justification', sa.Text(), nullable=True),
    sa.Column('milliseconds_to_decide', sa.BigInteger(), nullable=True),
    sa.Column('instructions_id', sa.BigInteger(), nullable=True),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('import_id', sa.BigInteger(), nullable=True),
    sa.Column('source_line', sa.Text(), nullable=True),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("mode IN ('helpful','red_team')", name=op.f('ck_comparisons_mode_known')),
    sa.CheckConstraint('chosen_id <> rejected_id', name=op.f('ck_comparisons_two_candidates')),
    sa.CheckConstraint('import_id IS NOT NULL OR (person_id IS NOT NULL AND strength IS NOT NULL AND scale_position IS NOT NULL AND instructions_id IS NOT NULL AND milliseconds_to_decide IS NOT NULL)', name=op.f('ck_comparisons_judged_here_is_complete')),
    sa.CheckConstraint('milliseconds_to_decide IS NULL OR milliseconds_to_decide >= 0', name=op.f('ck_comparisons_time_not_negative')),
    sa.CheckConstraint('picked_id IN (chosen_id, rejected_id)', name=op.f('ck_comparisons_picked_is_one_of_both')),
    sa.CheckConstraint('scale_position IS NULL OR scale_position BETWEEN 1 AND 8', name=op.f('ck_comparisons_scale_position_range')),
    sa.CheckConstraint('strength IS NULL OR strength BETWEEN 1 AND 4', name=op.f('ck_comparisons_strength_range')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_comparisons_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['chosen_id', 'turn_id'], ['candidates.id', 'candidates.turn_id'], name=op.f('fk_comparisons_chosen_id_turn_id_candidates')),
    sa.ForeignKeyConstraint(['import_id'], ['jobs.id'], name=op.f('fk_comparisons_import_id_jobs')),
    sa.ForeignKeyConstraint(['instructions_id', 'campaign_id'], ['instructions.id', 'instructions.campaign_id'], name=op.f('fk_comparisons_instructions_id_campaign_id_instructions')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_comparisons_person_id_people')),
    sa.ForeignKeyConstraint(['picked_id'], ['candidates.id'], name=op.f('fk_comparisons_picked_id_candidates')),
    sa.ForeignKeyConstraint(['rejected_id', 'turn_id'], ['candidates.id', 'candidates.turn_id'], name=op.f('fk_comparisons_rejected_id_turn_id_candidates')),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name=op.f('fk_comparisons_round_id_rounds')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_comparisons_turn_id_turns')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_comparisons')),
    sa.UniqueConstraint('person_id', 'idempotency_key', name=op.f('uq_comparisons_person_id_idempotency_key')),
    sa.UniqueConstraint('turn_id', 'person_id', name=op.f('uq_comparisons_turn_id_person_id'))
    )
    op.create_index('ix_comparisons_campaign_id_created_at', 'comparisons', ['campaign_id', 'created_at'], unique=False)
    op.create_index('ix_comparisons_created_at', 'comparisons', ['created_at'], unique=False)
    op.create_index(op.f('ix_comparisons_import_id'), 'comparisons', ['import_id'], unique=False)
    op.create_table('dataset_members',
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('split', sa.Text(), nullable=False),
    sa.CheckConstraint("split IN ('train','test')", name=op.f('ck_dataset_members_split_known')),
    sa.ForeignKeyConstraint(['comparison_id'], ['comparisons.id'], name=op.f('fk_dataset_members_comparison_id_comparisons')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_dataset_members_dataset_version_id_dataset_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('dataset_version_id', 'comparison_id', name=op.f('pk_dataset_members'))
    )
    op.create_index(op.f('ix_dataset_members_comparison_id'), 'dataset_members', ['comparison_id'], unique=False)

    # Two-way references are added once both tables exist.
    op.create_foreign_key("fk_deployments_round_id_rounds", "deployments", "rounds", ["round_id"], ["id"])
    op.create_foreign_key("fk_snapshots_round_id_rounds", "snapshots", "rounds", ["round_id"], ["id"])
    op.create_foreign_key("fk_turns_continued_by_id_candidates", "turns", "candidates", ["continued_by_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint("fk_turns_continued_by_id_candidates", "turns", type_="foreignkey")
    op.drop_constraint("fk_snapshots_round_id_rounds", "snapshots", type_="foreignkey")
    op.drop_constraint("fk_deployments_round_id_rounds", "deployments", type_="foreignkey")
    op.drop_index(op.f('ix_dataset_members_comparison_id'), table_name='dataset_members')
    op.drop_table('dataset_members')
    op.drop_index(op.f('ix_comparisons_import_id'), table_name='comparisons')
    op.drop_index('ix_comparisons_created_at', table_name='comparisons')
    op.drop_index('ix_comparisons_campaign_id_created_at', table_name='comparisons')
    op.drop_table('comparisons')
    op.drop_table('round_steps')
    op.drop_index('ix_leases_turn_id', table_name='leases', postgresql_where=sa.text('released_at IS NULL'))
    op.drop_table('leases')
    op.drop_index('ix_candidates_waiting', table_name='candidates', postgresql_where=sa.text("status IN ('queued','sampling')"))
    op.drop_index('ix_candidates_snapshot_id', table_name='candidates')
    op.drop_table('candidates')
    op.drop_index('ix_turns_sampling', table_name='turns', postgresql_where=sa.text("status = 'sampling'"))
    op.drop_table('turns')
    op.drop_index('uq_rounds_active', table_name='rounds', postgresql_where=sa.text("status IN ('queued','running','held')"))
    op.drop_table('rounds')
    op.drop_table('deployment_shares')
    op.drop_table('snapshots')
    op.drop_index('uq_conversations_open', table_name='conversations', postgresql_where=sa.text("status = 'open' AND source = 'chat'"))
    op.drop_index(op.f('ix_conversations_person_id'), table_name='conversations')
    op.drop_index(op.f('ix_conversations_import_id'), table_name='conversations')
    op.drop_index('ix_conversations_campaign_id_id', table_name='conversations')
    op.drop_table('conversations')
    op.drop_table('runs')
    op.drop_table('prompts')
    op.drop_table('instructions')
    op.drop_index('uq_deployments_current', table_name='deployments', postgresql_where=sa.text('replaced_at IS NULL'))
    op.drop_index('ix_deployments_campaign_id_id', table_name='deployments')
    op.drop_table('deployments')
    op.drop_table('sign_in_links')
    op.drop_table('schedules')
    op.drop_index(op.f('ix_login_sessions_person_id'), table_name='login_sessions')
    op.drop_table('login_sessions')
    op.drop_table('jobs')
    op.drop_table('invitations')
    op.drop_table('drafts')
    op.drop_table('dataset_versions')
    op.drop_table('campaigns')
    op.drop_index('ix_audit_entries_created_at', table_name='audit_entries')
    op.drop_table('audit_entries')
    op.drop_index('uq_people_email_lower', table_name='people')
    op.drop_table('people')
