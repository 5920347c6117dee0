"""The tables. Importing this package registers all of them on `Base.metadata`."""

from server.models.audit import AuditEntry
from server.models.campaigns import Campaign, Instructions, Prompt
from server.models.dialogue import Candidate, Conversation, Turn
from server.models.feedback import Comparison, Draft, Lease, Undone
from server.models.jobs import Job
from server.models.panels import Panel, PanelSubmission, WebhookEvent
from server.models.pay import Appeal, LedgerEntry, Payroll, WorkSession
from server.models.people import Invitation, LoginSession, OpenIdAccount, Person, SignInLink, SignInRequest
from server.models.qualification import CheckResult, Membership, Question, TestAttempt
from server.models.rankings import Ranking, RankingPlace
from server.models.registry import (
    DatasetEdit,
    DatasetMember,
    DatasetRanking,
    DatasetVersion,
    Deployment,
    DeploymentShare,
    Run,
    Snapshot,
)
from server.models.remarks import Notice, Report, Skip
from server.models.rounds import Round, RoundStep, Schedule
from server.models.writing import Demonstration, Edit

__all__ = [
    "Appeal",
    "AuditEntry",
    "Campaign",
    "Candidate",
    "CheckResult",
    "Comparison",
    "Conversation",
    "DatasetEdit",
    "DatasetMember",
    "DatasetRanking",
    "DatasetVersion",
    "Demonstration",
    "Deployment",
    "DeploymentShare",
    "Draft",
    "Edit",
    "Instructions",
    "Invitation",
    "Job",
    "Lease",
    "LedgerEntry",
    "LoginSession",
    "Membership",
    "Notice",
    "OpenIdAccount",
    "Panel",
    "PanelSubmission",
    "Payroll",
    "Person",
    "Prompt",
    "Question",
    "Ranking",
    "RankingPlace",
    "Report",
    "Round",
    "RoundStep",
    "Run",
    "Schedule",
    "SignInLink",
    "SignInRequest",
    "Skip",
    "Snapshot",
    "TestAttempt",
    "Turn",
    "Undone",
    "WebhookEvent",
    "WorkSession",
]
