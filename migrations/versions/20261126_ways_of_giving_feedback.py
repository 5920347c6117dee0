"""Ways of giving feedback beside the chat, qualification and checks, paid time, panels, preferences of people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

# (table, name, condition) of the checks that come with this migration on tables that were there before.
NEW_CHECKS = [
    ('campaigns', 'ck_campaigns_access_known', "access IN ('everyone','members')"),
    ('campaigns', 'ck_campaigns_candidates_range', 'candidates BETWEEN 2 AND 9'),
    ('campaigns', 'ck_campaigns_check_rate_range', 'check_rate BETWEEN 0 AND 0.5'),
    ('campaigns', 'ck_campaigns_currency_shape', "currency ~ '^[A-Z]{3}$'"),
    ('campaigns', 'ck_campaigns_daily_limit_positive', 'daily_limit IS NULL OR daily_limit > 0'),
    ('campaigns', 'ck_campaigns_edits_known', "edits IN ('off','optional','required')"),
    ('campaigns', 'ck_campaigns_justification_known', "justification IN ('off','optional','required')"),
    ('campaigns', 'ck_campaigns_pairing_known', "pairing IN ('shares','one','two')"),
    ('campaigns', 'ck_campaigns_pass_mark_range', 'pass_mark IS NULL OR pass_mark BETWEEN 0 AND 1'),
    ('campaigns', 'ck_campaigns_prepared_range', 'prepared BETWEEN 0 AND 100'),
    ('campaigns', 'ck_campaigns_purpose_known', "purpose IN ('training','evaluation')"),
    ('campaigns', 'ck_campaigns_screening_agreement_range', 'screening_agreement BETWEEN 0 AND 1'),
    ('campaigns', 'ck_campaigns_screening_items_range', 'screening_items BETWEEN 0 AND 1000'),
    ('campaigns', 'ck_campaigns_test_attempts_range', 'test_attempts BETWEEN 1 AND 100'),
    ('campaigns', 'ck_campaigns_too_fast_seconds_range', 'too_fast_seconds BETWEEN 0 AND 600'),
    ('campaigns', 'ck_campaigns_undo_seconds_range', 'undo_seconds BETWEEN 0 AND 86400'),
    ('campaigns', 'ck_campaigns_way_known', "way IN ('chat','pairs','ranking','demonstration','prompts')"),
    ('people', 'ck_people_theme_known', "theme IN ('auto','light','dark')"),
    ('sign_in_links', 'ck_sign_in_links_kind_known', "kind IN ('demo','email')"),
    ('conversations', 'ck_conversations_success_range', 'success BETWEEN 1 AND 5'),
    ('turns', 'ck_turns_check_has_expected', '(check_kind IS NULL) = (expected IS NULL)'),
    ('turns', 'ck_turns_check_kind_known', "check_kind IN ('gold','attention')"),
    ('prompts', 'ck_prompts_status_known', "status IN ('proposed','accepted','declined')"),
    ('comparisons', 'ck_comparisons_compared_here_is_complete', "import_id IS NOT NULL OR (person_id IS NOT NULL AND instructions_id IS NOT NULL AND milliseconds_to_decide IS NOT NULL AND (verdict <> 'picked' OR (strength IS NOT NULL AND scale_position IS NOT NULL)))"),
    ('comparisons', 'ck_comparisons_purpose_known', "purpose IN ('training','evaluation')"),
    ('comparisons', 'ck_comparisons_verdict_fits', "(verdict = 'picked') = (picked_id IS NOT NULL AND chosen_id IS NOT NULL AND rejected_id IS NOT NULL) AND (verdict = 'picked' OR (picked_id IS NULL AND chosen_id IS NULL AND rejected_id IS NULL AND strength IS NULL AND scale_position IS NULL))"),
    ('comparisons', 'ck_comparisons_verdict_known', "verdict IN ('picked','tie','both_bad')"),
]
# (table, name, condition before, condition after)
CHANGED_CHECKS = [
    ('conversations', 'ck_conversations_source_known', "source IN ('chat','import')", "source IN ('chat','import','item','prepared')"),
    ('conversations', 'ck_conversations_chat_has_person', "source = 'import' OR person_id IS NOT NULL", "source <> 'chat' OR person_id IS NOT NULL"),
]
JUDGED_HERE = (
    'import_id IS NOT NULL OR (person_id IS NOT NULL AND strength IS NOT NULL AND scale_position IS NOT NULL'
    ' AND instructions_id IS NOT NULL AND milliseconds_to_decide IS NOT NULL)'
)


def upgrade() -> None:
    op.create_table('openid_accounts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('issuer', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_openid_accounts_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_openid_accounts')),
    sa.UniqueConstraint('issuer', 'subject', name=op.f('uq_openid_accounts_issuer_subject'))
    )
    op.create_index(op.f('ix_openid_accounts_person_id'), 'openid_accounts', ['person_id'], unique=False)
    op.create_table('notices',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=True),
    sa.Column('sender_id', sa.BigInteger(), nullable=True),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('read_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('char_length(text) BETWEEN 1 AND 10000', name=op.f('ck_notices_text_length')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_notices_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_notices_person_id_people'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['sender_id'], ['people.id'], name=op.f('fk_notices_sender_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_notices'))
    )
    op.create_index(op.f('ix_notices_person_id'), 'notices', ['person_id'], unique=False)
    op.create_table('panels',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('slug', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('webhook_secret', sa.Text(), nullable=True),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind IN ('prolific','generic')", name=op.f('ck_panels_kind_known')),
    sa.CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name=op.f('ck_panels_slug_shape')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_panels_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_panels_created_by_id_people'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_panels')),
    sa.UniqueConstraint('slug', name=op.f('uq_panels_slug'))
    )
    op.create_table('questions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('markdown', sa.Text(), nullable=False),
    sa.Column('options', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('answer', sa.Integer(), nullable=False),
    sa.Column('explanation', sa.Text(), server_default=sa.text("''"), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('retired_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('answer >= 0 AND answer < jsonb_array_length(options)', name=op.f('ck_questions_answer_is_an_option')),
    sa.CheckConstraint('jsonb_array_length(options) BETWEEN 2 AND 10', name=op.f('ck_questions_options_number')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_questions_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_questions'))
    )
    op.create_index(op.f('ix_questions_campaign_id'), 'questions', ['campaign_id'], unique=False)
    op.create_table('test_attempts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('answers', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('correct_count', sa.Integer(), nullable=False),
    sa.Column('question_count', sa.Integer(), nullable=False),
    sa.Column('passed', sa.Boolean(), nullable=False),
    sa.Column('idempotency_key', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('correct_count BETWEEN 0 AND question_count', name=op.f('ck_test_attempts_counts_fit')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_test_attempts_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_test_attempts_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_test_attempts')),
    sa.UniqueConstraint('person_id', 'idempotency_key', name=op.f('uq_test_attempts_person_id_idempotency_key'))
    )
    op.create_index('ix_test_attempts_person_id_campaign_id', 'test_attempts', ['person_id', 'campaign_id'], unique=False)
    op.create_table('memberships',
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'active'"), nullable=False),
    sa.Column('instructions_id', sa.BigInteger(), nullable=True),
    sa.Column('consent_sha256', sa.Text(), nullable=True),
    sa.Column('consented_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('passed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('screened_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("status IN ('active','screened_out','left','excluded')", name=op.f('ck_memberships_status_known')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_memberships_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['instructions_id'], ['instructions.id'], name=op.f('fk_memberships_instructions_id_instructions')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_memberships_person_id_people'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('person_id', 'campaign_id', name=op.f('pk_memberships'))
    )
    op.create_index('ix_memberships_campaign_id', 'memberships', ['campaign_id'], unique=False)
    op.create_table('panel_submissions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('panel_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('participant', sa.Text(), nullable=False),
    sa.Column('study', sa.Text(), nullable=True),
    sa.Column('external_id', sa.Text(), nullable=False),
    sa.Column('captured', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('status', sa.Text(), server_default=sa.text("'active'"), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('status_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('completed_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("status IN ('reserved','active','awaiting_review','approved','rejected','returned','timed_out','screened_out')", name=op.f('ck_panel_submissions_status_known')),
    sa.ForeignKeyConstraint(['panel_id'], ['panels.id'], name=op.f('fk_panel_submissions_panel_id_panels'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_panel_submissions_person_id_people')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_panel_submissions')),
    sa.UniqueConstraint('panel_id', 'external_id', name=op.f('uq_panel_submissions_panel_id_external_id'))
    )
    op.create_index('ix_panel_submissions_person_id', 'panel_submissions', ['person_id'], unique=False)
    op.create_table('webhook_events',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('panel_id', sa.BigInteger(), nullable=False),
    sa.Column('event_id', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('body', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['panel_id'], ['panels.id'], name=op.f('fk_webhook_events_panel_id_panels'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_webhook_events')),
    sa.UniqueConstraint('panel_id', 'event_id', name=op.f('uq_webhook_events_panel_id_event_id'))
    )
    op.create_table('work_sessions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('submission_id', sa.BigInteger(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('active_seconds', sa.Double(), server_default=sa.text('0'), nullable=False),
    sa.Column('answers', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_as', sa.Text(), nullable=True),
    sa.CheckConstraint("ended_as IN ('finished','returned','timed_out','idle')", name=op.f('ck_work_sessions_ended_as_known')),
    sa.CheckConstraint('active_seconds >= 0', name=op.f('ck_work_sessions_active_seconds_not_negative')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_work_sessions_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_work_sessions_person_id_people')),
    sa.ForeignKeyConstraint(['submission_id'], ['panel_submissions.id'], name=op.f('fk_work_sessions_submission_id_panel_submissions')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_work_sessions'))
    )
    op.create_index('ix_work_sessions_campaign_id', 'work_sessions', ['campaign_id'], unique=False)
    op.create_index('uq_work_sessions_open', 'work_sessions', ['person_id', 'campaign_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL'))
    op.create_table('ledger_entries',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=True),
    sa.Column('work_session_id', sa.BigInteger(), nullable=True),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('minutes', sa.Numeric(precision=10, scale=2), nullable=True),
    sa.Column('rate_per_hour', sa.Numeric(precision=8, scale=2), nullable=True),
    sa.Column('amount', sa.Numeric(precision=10, scale=2), nullable=False),
    sa.Column('currency', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), server_default=sa.text("'pending'"), nullable=False),
    sa.Column('status_reason', sa.Text(), nullable=True),
    sa.Column('status_by_id', sa.BigInteger(), nullable=True),
    sa.Column('status_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("kind = 'time' OR reason IS NOT NULL", name=op.f('ck_ledger_entries_reason_given')),
    sa.CheckConstraint("kind IN ('time','bonus','correction')", name=op.f('ck_ledger_entries_kind_known')),
    sa.CheckConstraint("status <> 'rejected' OR status_reason IS NOT NULL", name=op.f('ck_ledger_entries_rejection_has_reason')),
    sa.CheckConstraint("status IN ('pending','approved','rejected','paid')", name=op.f('ck_ledger_entries_status_known')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_ledger_entries_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_ledger_entries_created_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_ledger_entries_person_id_people')),
    sa.ForeignKeyConstraint(['status_by_id'], ['people.id'], name=op.f('fk_ledger_entries_status_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['work_session_id'], ['work_sessions.id'], name=op.f('fk_ledger_entries_work_session_id_work_sessions')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_ledger_entries')),
    sa.UniqueConstraint('created_by_id', 'idempotency_key', name=op.f('uq_ledger_entries_created_by_id_idempotency_key')),
    sa.UniqueConstraint('work_session_id', 'kind', name=op.f('uq_ledger_entries_work_session_id_kind'))
    )
    op.create_index('ix_ledger_entries_person_id', 'ledger_entries', ['person_id'], unique=False)
    op.create_index('ix_ledger_entries_status', 'ledger_entries', ['status'], unique=False)
    op.create_table('appeals',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('ledger_entry_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.Column('answer', sa.Text(), nullable=True),
    sa.Column('answered_by_id', sa.BigInteger(), nullable=True),
    sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("outcome IN ('upheld','granted')", name=op.f('ck_appeals_outcome_known')),
    sa.CheckConstraint('(outcome IS NULL) = (answered_at IS NULL)', name=op.f('ck_appeals_outcome_with_answer')),
    sa.CheckConstraint('char_length(text) BETWEEN 1 AND 10000', name=op.f('ck_appeals_text_length')),
    sa.ForeignKeyConstraint(['answered_by_id'], ['people.id'], name=op.f('fk_appeals_answered_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['ledger_entry_id'], ['ledger_entries.id'], name=op.f('fk_appeals_ledger_entry_id_ledger_entries')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_appeals_person_id_people')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_appeals')),
    sa.UniqueConstraint('ledger_entry_id', name=op.f('uq_appeals_ledger_entry_id'))
    )
    op.create_index(op.f('ix_appeals_person_id'), 'appeals', ['person_id'], unique=False)
    op.create_table('check_results',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('passed', sa.Boolean(), nullable=False),
    sa.Column('expected', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('answered', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("kind IN ('gold','attention')", name=op.f('ck_check_results_kind_known')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_check_results_campaign_id_campaigns'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_check_results_person_id_people'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_check_results_turn_id_turns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_check_results')),
    sa.UniqueConstraint('turn_id', 'person_id', name=op.f('uq_check_results_turn_id_person_id'))
    )
    op.create_index('ix_check_results_campaign_id_person_id', 'check_results', ['campaign_id', 'person_id'], unique=False)
    op.create_table('demonstrations',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('purpose', sa.Text(), server_default=sa.text("'training'"), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('milliseconds', sa.BigInteger(), nullable=False),
    sa.Column('signals', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('instructions_id', sa.BigInteger(), nullable=False),
    sa.Column('idempotency_key', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("purpose IN ('training','evaluation')", name=op.f('ck_demonstrations_purpose_known')),
    sa.CheckConstraint('char_length(text) > 0', name=op.f('ck_demonstrations_text_not_empty')),
    sa.CheckConstraint('milliseconds >= 0', name=op.f('ck_demonstrations_time_not_negative')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_demonstrations_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['instructions_id', 'campaign_id'], ['instructions.id', 'instructions.campaign_id'], name=op.f('fk_demonstrations_instructions_id_campaign_id_instructions')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_demonstrations_person_id_people')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_demonstrations_turn_id_turns')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_demonstrations')),
    sa.UniqueConstraint('person_id', 'idempotency_key', name=op.f('uq_demonstrations_person_id_idempotency_key')),
    sa.UniqueConstraint('turn_id', 'person_id', name=op.f('uq_demonstrations_turn_id_person_id'))
    )
    op.create_index('ix_demonstrations_campaign_id_created_at', 'demonstrations', ['campaign_id', 'created_at'], unique=False)
    op.create_table('rankings',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('purpose', sa.Text(), server_default=sa.text("'training'"), nullable=False),
    sa.Column('justification', sa.Text(), nullable=True),
    sa.Column('milliseconds_to_decide', sa.BigInteger(), nullable=False),
    sa.Column('signals', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('instructions_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("mode IN ('helpful','red_team')", name=op.f('ck_rankings_mode_known')),
    sa.CheckConstraint("purpose IN ('training','evaluation')", name=op.f('ck_rankings_purpose_known')),
    sa.CheckConstraint('milliseconds_to_decide >= 0', name=op.f('ck_rankings_time_not_negative')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_rankings_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['instructions_id', 'campaign_id'], ['instructions.id', 'instructions.campaign_id'], name=op.f('fk_rankings_instructions_id_campaign_id_instructions')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_rankings_person_id_people')),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name=op.f('fk_rankings_round_id_rounds')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_rankings_turn_id_turns')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_rankings')),
    sa.UniqueConstraint('person_id', 'idempotency_key', name=op.f('uq_rankings_person_id_idempotency_key')),
    sa.UniqueConstraint('turn_id', 'person_id', name=op.f('uq_rankings_turn_id_person_id'))
    )
    op.create_index('ix_rankings_campaign_id_created_at', 'rankings', ['campaign_id', 'created_at'], unique=False)
    op.create_table('skips',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('note', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_skips_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_skips_person_id_people')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_skips_turn_id_turns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_skips'))
    )
    op.create_index(op.f('ix_skips_campaign_id'), 'skips', ['campaign_id'], unique=False)
    op.create_index('uq_skips_turn_id_person_id', 'skips', ['turn_id', 'person_id'], unique=True)
    op.create_table('undone',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=True),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('answer', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('undone_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_undone_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_undone_person_id_people')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_undone_turn_id_turns')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_undone'))
    )
    op.create_index('ix_undone_person_id', 'undone', ['person_id'], unique=False)
    op.create_table('dataset_rankings',
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=False),
    sa.Column('ranking_id', sa.BigInteger(), nullable=False),
    sa.Column('split', sa.Text(), nullable=False),
    sa.CheckConstraint("split IN ('train','test')", name=op.f('ck_dataset_rankings_split_known')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_dataset_rankings_dataset_version_id_dataset_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['ranking_id'], ['rankings.id'], name=op.f('fk_dataset_rankings_ranking_id_rankings')),
    sa.PrimaryKeyConstraint('dataset_version_id', 'ranking_id', name=op.f('pk_dataset_rankings'))
    )
    op.create_index(op.f('ix_dataset_rankings_ranking_id'), 'dataset_rankings', ['ranking_id'], unique=False)
    op.create_table('edits',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('original_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('purpose', sa.Text(), server_default=sa.text("'training'"), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('milliseconds', sa.BigInteger(), nullable=False),
    sa.Column('signals', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('instructions_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("purpose IN ('training','evaluation')", name=op.f('ck_edits_purpose_known')),
    sa.CheckConstraint('char_length(text) > 0', name=op.f('ck_edits_text_not_empty')),
    sa.CheckConstraint('milliseconds >= 0', name=op.f('ck_edits_time_not_negative')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_edits_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['instructions_id', 'campaign_id'], ['instructions.id', 'instructions.campaign_id'], name=op.f('fk_edits_instructions_id_campaign_id_instructions')),
    sa.ForeignKeyConstraint(['original_id', 'turn_id'], ['candidates.id', 'candidates.turn_id'], name=op.f('fk_edits_original_id_turn_id_candidates')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_edits_person_id_people')),
    sa.ForeignKeyConstraint(['round_id'], ['rounds.id'], name=op.f('fk_edits_round_id_rounds')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_edits_turn_id_turns')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_edits')),
    sa.UniqueConstraint('person_id', 'idempotency_key', name=op.f('uq_edits_person_id_idempotency_key')),
    sa.UniqueConstraint('turn_id', 'person_id', name=op.f('uq_edits_turn_id_person_id'))
    )
    op.create_index('ix_edits_campaign_id_created_at', 'edits', ['campaign_id', 'created_at'], unique=False)
    op.create_table('ranking_places',
    sa.Column('ranking_id', sa.BigInteger(), nullable=False),
    sa.Column('candidate_id', sa.BigInteger(), nullable=False),
    sa.Column('place', sa.Integer(), nullable=False),
    sa.Column('rating', sa.Integer(), nullable=True),
    sa.Column('flags', postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
    sa.CheckConstraint('place BETWEEN 1 AND 9', name=op.f('ck_ranking_places_place_range')),
    sa.CheckConstraint('rating BETWEEN 1 AND 7', name=op.f('ck_ranking_places_rating_range')),
    sa.ForeignKeyConstraint(['candidate_id'], ['candidates.id'], name=op.f('fk_ranking_places_candidate_id_candidates')),
    sa.ForeignKeyConstraint(['ranking_id'], ['rankings.id'], name=op.f('fk_ranking_places_ranking_id_rankings'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('ranking_id', 'candidate_id', name=op.f('pk_ranking_places'))
    )
    op.create_table('reports',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('campaign_id', sa.BigInteger(), nullable=False),
    sa.Column('turn_id', sa.BigInteger(), nullable=False),
    sa.Column('candidate_id', sa.BigInteger(), nullable=True),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('note', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed_by_id', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaigns.id'], name=op.f('fk_reports_campaign_id_campaigns')),
    sa.ForeignKeyConstraint(['candidate_id', 'turn_id'], ['candidates.id', 'candidates.turn_id'], name=op.f('fk_reports_candidate_id_turn_id_candidates')),
    sa.ForeignKeyConstraint(['closed_by_id'], ['people.id'], name=op.f('fk_reports_closed_by_id_people'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_reports_person_id_people')),
    sa.ForeignKeyConstraint(['turn_id'], ['turns.id'], name=op.f('fk_reports_turn_id_turns'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_reports'))
    )
    op.create_index(op.f('ix_reports_campaign_id'), 'reports', ['campaign_id'], unique=False)
    op.create_index('ix_reports_open', 'reports', ['id'], unique=False, postgresql_where=sa.text('closed_at IS NULL'))
    op.create_table('dataset_edits',
    sa.Column('dataset_version_id', sa.BigInteger(), nullable=False),
    sa.Column('edit_id', sa.BigInteger(), nullable=False),
    sa.Column('split', sa.Text(), nullable=False),
    sa.CheckConstraint("split IN ('train','test')", name=op.f('ck_dataset_edits_split_known')),
    sa.ForeignKeyConstraint(['dataset_version_id'], ['dataset_versions.id'], name=op.f('fk_dataset_edits_dataset_version_id_dataset_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['edit_id'], ['edits.id'], name=op.f('fk_dataset_edits_edit_id_edits')),
    sa.PrimaryKeyConstraint('dataset_version_id', 'edit_id', name=op.f('pk_dataset_edits'))
    )
    op.create_index(op.f('ix_dataset_edits_edit_id'), 'dataset_edits', ['edit_id'], unique=False)
    op.add_column('campaigns', sa.Column('way', sa.Text(), server_default=sa.text("'chat'"), nullable=False))
    op.add_column('campaigns', sa.Column('purpose', sa.Text(), server_default=sa.text("'training'"), nullable=False))
    op.add_column('campaigns', sa.Column('pairing', sa.Text(), server_default=sa.text("'shares'"), nullable=False))
    op.add_column('campaigns', sa.Column('candidates', sa.BigInteger(), server_default=sa.text('2'), nullable=False))
    op.add_column('campaigns', sa.Column('ties', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('both_bad', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('justification', sa.Text(), server_default=sa.text("'optional'"), nullable=False))
    op.add_column('campaigns', sa.Column('edits', sa.Text(), server_default=sa.text("'off'"), nullable=False))
    op.add_column('campaigns', sa.Column('rated', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('flags', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False))
    op.add_column('campaigns', sa.Column('undo_seconds', sa.BigInteger(), server_default=sa.text('120'), nullable=False))
    op.add_column('campaigns', sa.Column('daily_limit', sa.BigInteger(), nullable=True))
    op.add_column('campaigns', sa.Column('consent', sa.Text(), nullable=True))
    op.add_column('campaigns', sa.Column('blurred', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('asks_success', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('access', sa.Text(), server_default=sa.text("'everyone'"), nullable=False))
    op.add_column('campaigns', sa.Column('check_rate', sa.Double(), server_default=sa.text('0'), nullable=False))
    op.add_column('campaigns', sa.Column('shares_checks', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('pass_mark', sa.Double(), nullable=True))
    op.add_column('campaigns', sa.Column('test_attempts', sa.BigInteger(), server_default=sa.text('3'), nullable=False))
    op.add_column('campaigns', sa.Column('screening_items', sa.BigInteger(), server_default=sa.text('0'), nullable=False))
    op.add_column('campaigns', sa.Column('screening_agreement', sa.Double(), server_default=sa.text('0.75'), nullable=False))
    op.add_column('campaigns', sa.Column('too_fast_seconds', sa.Double(), server_default=sa.text('2'), nullable=False))
    op.add_column('campaigns', sa.Column('leaderboard', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('campaigns', sa.Column('prepared', sa.BigInteger(), server_default=sa.text('4'), nullable=False))
    op.add_column('campaigns', sa.Column('currency', sa.Text(), server_default=sa.text("'USD'"), nullable=False))
    op.add_column('campaigns', sa.Column('pool_id', sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f('fk_campaigns_pool_id_campaigns'), 'campaigns', 'campaigns', ['pool_id'], ['id'])
    op.add_column('candidates', sa.Column('demonstration_id', sa.BigInteger(), nullable=True))
    op.create_foreign_key('fk_candidates_demonstration_id_demonstrations', 'candidates', 'demonstrations', ['demonstration_id'], ['id'])
    op.add_column('comparisons', sa.Column('purpose', sa.Text(), server_default=sa.text("'training'"), nullable=False))
    op.add_column('comparisons', sa.Column('verdict', sa.Text(), server_default=sa.text("'picked'"), nullable=False))
    op.add_column('comparisons', sa.Column('signals', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.alter_column('comparisons', 'picked_id',
               existing_type=sa.BIGINT(),
               nullable=True)
    op.alter_column('comparisons', 'chosen_id',
               existing_type=sa.BIGINT(),
               nullable=True)
    op.alter_column('comparisons', 'rejected_id',
               existing_type=sa.BIGINT(),
               nullable=True)
    op.add_column('conversations', sa.Column('success', sa.Integer(), nullable=True))
    op.create_index('ix_conversations_prepared', 'conversations', ['campaign_id', 'prompt_id'], unique=False, postgresql_where=sa.text("source = 'prepared'"))
    op.add_column('people', sa.Column('held_out', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('people', sa.Column('language', sa.Text(), nullable=True))
    op.add_column('people', sa.Column('theme', sa.Text(), server_default=sa.text("'auto'"), nullable=False))
    op.add_column('people', sa.Column('keys', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.add_column('people', sa.Column('email_confirmed_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('prompts', sa.Column('status', sa.Text(), server_default=sa.text("'accepted'"), nullable=False))
    op.add_column('prompts', sa.Column('author_id', sa.BigInteger(), nullable=True))
    op.add_column('prompts', sa.Column('written_in_id', sa.BigInteger(), nullable=True))
    op.add_column('prompts', sa.Column('instructions_id', sa.BigInteger(), nullable=True))
    op.add_column('prompts', sa.Column('milliseconds', sa.BigInteger(), nullable=True))
    op.add_column('prompts', sa.Column('signals', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.add_column('prompts', sa.Column('idempotency_key', sa.Text(), nullable=True))
    op.create_unique_constraint(op.f('uq_prompts_author_id_idempotency_key'), 'prompts', ['author_id', 'idempotency_key'])
    op.create_foreign_key(op.f('fk_prompts_author_id_people'), 'prompts', 'people', ['author_id'], ['id'])
    op.create_foreign_key(op.f('fk_prompts_instructions_id_instructions'), 'prompts', 'instructions', ['instructions_id'], ['id'])
    op.create_foreign_key(op.f('fk_prompts_written_in_id_campaigns'), 'prompts', 'campaigns', ['written_in_id'], ['id'])
    op.add_column('sign_in_links', sa.Column('kind', sa.Text(), server_default=sa.text("'demo'"), nullable=False))
    op.add_column('turns', sa.Column('queue_id', sa.BigInteger(), nullable=True))
    op.add_column('turns', sa.Column('check_kind', sa.Text(), nullable=True))
    op.add_column('turns', sa.Column('expected', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True))
    op.create_index('ix_turns_queue', 'turns', ['queue_id', 'id'], unique=False, postgresql_where=sa.text('queue_id IS NOT NULL'))
    op.create_foreign_key(op.f('fk_turns_queue_id_campaigns'), 'turns', 'campaigns', ['queue_id'], ['id'])
    op.drop_constraint(op.f('ck_comparisons_judged_here_is_complete'), 'comparisons', type_='check')
    for table, name, condition in NEW_CHECKS:
        op.create_check_constraint(op.f(name), table, condition)
    for table, name, _before, after in CHANGED_CHECKS:
        op.drop_constraint(op.f(name), table, type_='check')
        op.create_check_constraint(op.f(name), table, after)
    # Turns that still want the opinion of more people stand in their campaign's queue from now on.
    op.execute(
        "UPDATE turns SET queue_id = conversations.campaign_id FROM conversations, campaigns "
        "WHERE conversations.id = turns.conversation_id AND campaigns.id = conversations.campaign_id "
        "AND conversations.source = 'chat' AND turns.status = 'compared' AND campaigns.overlap > "
        "(SELECT count(*) FROM comparisons WHERE comparisons.turn_id = turns.id)"
    )


def downgrade() -> None:
    # What the tables of before cannot hold goes: answers that pick nothing, and conversations that are nobody's.
    op.execute("DELETE FROM dataset_members USING comparisons WHERE comparisons.id = comparison_id AND verdict <> 'picked'")
    op.execute("DELETE FROM comparisons WHERE verdict <> 'picked'")
    op.execute("UPDATE conversations SET source = 'import' WHERE source IN ('item', 'prepared')")
    for table, name, before, _after in reversed(CHANGED_CHECKS):
        op.drop_constraint(op.f(name), table, type_='check')
        op.create_check_constraint(op.f(name), table, before)
    for table, name, _condition in reversed(NEW_CHECKS):
        op.drop_constraint(op.f(name), table, type_='check')
    op.create_check_constraint(op.f('ck_comparisons_judged_here_is_complete'), 'comparisons', JUDGED_HERE)
    op.drop_constraint(op.f('fk_turns_queue_id_campaigns'), 'turns', type_='foreignkey')
    op.drop_index('ix_turns_queue', table_name='turns', postgresql_where=sa.text('queue_id IS NOT NULL'))
    op.drop_column('turns', 'expected')
    op.drop_column('turns', 'check_kind')
    op.drop_column('turns', 'queue_id')
    op.drop_column('sign_in_links', 'kind')
    op.drop_constraint(op.f('fk_prompts_written_in_id_campaigns'), 'prompts', type_='foreignkey')
    op.drop_constraint(op.f('fk_prompts_instructions_id_instructions'), 'prompts', type_='foreignkey')
    op.drop_constraint(op.f('fk_prompts_author_id_people'), 'prompts', type_='foreignkey')
    op.drop_constraint(op.f('uq_prompts_author_id_idempotency_key'), 'prompts', type_='unique')
    op.drop_column('prompts', 'idempotency_key')
    op.drop_column('prompts', 'signals')
    op.drop_column('prompts', 'milliseconds')
    op.drop_column('prompts', 'instructions_id')
    op.drop_column('prompts', 'written_in_id')
    op.drop_column('prompts', 'author_id')
    op.drop_column('prompts', 'status')
    op.drop_column('people', 'email_confirmed_at')
    op.drop_column('people', 'keys')
    op.drop_column('people', 'theme')
    op.drop_column('people', 'language')
    op.drop_column('people', 'held_out')
    op.drop_index('ix_conversations_prepared', table_name='conversations', postgresql_where=sa.text("source = 'prepared'"))
    op.drop_column('conversations', 'success')
    op.alter_column('comparisons', 'rejected_id',
               existing_type=sa.BIGINT(),
               nullable=False)
    op.alter_column('comparisons', 'chosen_id',
               existing_type=sa.BIGINT(),
               nullable=False)
    op.alter_column('comparisons', 'picked_id',
               existing_type=sa.BIGINT(),
               nullable=False)
    op.drop_column('comparisons', 'signals')
    op.drop_column('comparisons', 'verdict')
    op.drop_column('comparisons', 'purpose')
    op.drop_constraint('fk_candidates_demonstration_id_demonstrations', 'candidates', type_='foreignkey')
    op.drop_column('candidates', 'demonstration_id')
    op.drop_constraint(op.f('fk_campaigns_pool_id_campaigns'), 'campaigns', type_='foreignkey')
    op.drop_column('campaigns', 'pool_id')
    op.drop_column('campaigns', 'currency')
    op.drop_column('campaigns', 'prepared')
    op.drop_column('campaigns', 'leaderboard')
    op.drop_column('campaigns', 'too_fast_seconds')
    op.drop_column('campaigns', 'screening_agreement')
    op.drop_column('campaigns', 'screening_items')
    op.drop_column('campaigns', 'test_attempts')
    op.drop_column('campaigns', 'pass_mark')
    op.drop_column('campaigns', 'shares_checks')
    op.drop_column('campaigns', 'check_rate')
    op.drop_column('campaigns', 'access')
    op.drop_column('campaigns', 'asks_success')
    op.drop_column('campaigns', 'blurred')
    op.drop_column('campaigns', 'consent')
    op.drop_column('campaigns', 'daily_limit')
    op.drop_column('campaigns', 'undo_seconds')
    op.drop_column('campaigns', 'flags')
    op.drop_column('campaigns', 'rated')
    op.drop_column('campaigns', 'edits')
    op.drop_column('campaigns', 'justification')
    op.drop_column('campaigns', 'both_bad')
    op.drop_column('campaigns', 'ties')
    op.drop_column('campaigns', 'candidates')
    op.drop_column('campaigns', 'pairing')
    op.drop_column('campaigns', 'purpose')
    op.drop_column('campaigns', 'way')
    op.drop_index(op.f('ix_dataset_edits_edit_id'), table_name='dataset_edits')
    op.drop_table('dataset_edits')
    op.drop_index('ix_reports_open', table_name='reports', postgresql_where=sa.text('closed_at IS NULL'))
    op.drop_index(op.f('ix_reports_campaign_id'), table_name='reports')
    op.drop_table('reports')
    op.drop_table('ranking_places')
    op.drop_index('ix_edits_campaign_id_created_at', table_name='edits')
    op.drop_table('edits')
    op.drop_index(op.f('ix_dataset_rankings_ranking_id'), table_name='dataset_rankings')
    op.drop_table('dataset_rankings')
    op.drop_index('ix_undone_person_id', table_name='undone')
    op.drop_table('undone')
    op.drop_index('uq_skips_turn_id_person_id', table_name='skips')
    op.drop_index(op.f('ix_skips_campaign_id'), table_name='skips')
    op.drop_table('skips')
    op.drop_index('ix_rankings_campaign_id_created_at', table_name='rankings')
    op.drop_table('rankings')
    op.drop_index('ix_demonstrations_campaign_id_created_at', table_name='demonstrations')
    op.drop_table('demonstrations')
    op.drop_index('ix_check_results_campaign_id_person_id', table_name='check_results')
    op.drop_table('check_results')
    op.drop_index(op.f('ix_appeals_person_id'), table_name='appeals')
    op.drop_table('appeals')
    op.drop_index('ix_ledger_entries_status', table_name='ledger_entries')
    op.drop_index('ix_ledger_entries_person_id', table_name='ledger_entries')
    op.drop_table('ledger_entries')
    op.drop_index('uq_work_sessions_open', table_name='work_sessions', postgresql_where=sa.text('ended_at IS NULL'))
    op.drop_index('ix_work_sessions_campaign_id', table_name='work_sessions')
    op.drop_table('work_sessions')
    op.drop_table('webhook_events')
    op.drop_index('ix_panel_submissions_person_id', table_name='panel_submissions')
    op.drop_table('panel_submissions')
    op.drop_index('ix_memberships_campaign_id', table_name='memberships')
    op.drop_table('memberships')
    op.drop_index('ix_test_attempts_person_id_campaign_id', table_name='test_attempts')
    op.drop_table('test_attempts')
    op.drop_index(op.f('ix_questions_campaign_id'), table_name='questions')
    op.drop_table('questions')
    op.drop_table('panels')
    op.drop_index(op.f('ix_notices_person_id'), table_name='notices')
    op.drop_table('notices')
    op.drop_index(op.f('ix_openid_accounts_person_id'), table_name='openid_accounts')
    op.drop_table('openid_accounts')
