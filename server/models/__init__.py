"""The tables. Importing this package registers all of them on `Base.metadata`."""

from server.models.audit import AuditEntry
from server.models.campaigns import Campaign, Instructions, Prompt
from server.models.dialogue import Candidate, Conversation, Turn
from server.models.feedback import Comparison, Draft, Lease
from server.models.jobs import Job
from server.models.people import Invitation, LoginSession, Person, SignInLink
from server.models.registry import DatasetMember, DatasetVersion, Deployment, DeploymentShare, Run, Snapshot
from server.models.rounds import Round, RoundStep, Schedule

__all__ = [
    "AuditEntry",
    "Campaign",
    "Candidate",
    "Comparison",
    "Conversation",
    "DatasetMember",
    "DatasetVersion",
    "Deployment",
    "DeploymentShare",
    "Draft",
    "Instructions",
    "Invitation",
    "Job",
    "Lease",
    "LoginSession",
    "Person",
    "Prompt",
    "Round",
    "RoundStep",
    "Run",
    "Schedule",
    "SignInLink",
    "Snapshot",
    "Turn",
]
