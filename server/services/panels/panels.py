"""People whom a panel sends: who they are here, how their submission stands, and the code with which they go back.

A participant is a pseudonymous crowdworker, the same one for all studies at Prolific (its number of a person is the same
everywhere) and for each study of any other panel. A submission is one visit to one study, known by the panel's own number:
the same link again is the same submission.

What the panel says of a submission counts more than what we think: see `panel_webhooks`. Once it is given back or has run
out, everything that its person holds in the campaign goes to others at once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotAllowed, NotFound
from server.language import _, later
from server.models import Campaign, Membership, Panel, PanelSubmission, Person, WebhookEvent
from server.models.panels import SUBMISSION_STATUSES
from server.services.chat import dialogue, queue
from server.services.door import door
from server.services.panels.panel_settings import filled
from server.services.people import people
from server.services.working import kinds, leases, work_time

GIVEN_UP = ("returned", "timed_out")
SETTLED = (*GIVEN_UP, "approved", "rejected", "screened_out")
# How far along each status is: where two messages bear the same second, the later step holds.
STEP = {status: step for step, status in enumerate(SUBMISSION_STATUSES)}
WORDS = {
    "success": later("You have done what this study asked for. Thank you!"),
    "nothing_left": later("There is no more work in this study. Thank you for what you did."),
    "screened_out": later("This study goes on without you after its first part. Thank you for your time."),
    "failed_check": later(
        "Too many of the check questions were answered otherwise than expected, so the study ends here."
    ),
    "no_consent": later("You did not agree to the conditions of this study, so it ends here."),
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+=-]{0,199}")
MAX_CAPTURED_CHARS = 500


@dataclass(frozen=True)
class Arrival:
    """What the link of a participant says."""

    participant: str
    submission: str
    study: str | None
    captured: dict[str, str]


@dataclass(frozen=True)
class Study:
    """How one's submission stands, for the page of work."""

    slug: str
    target: int
    done: int
    outcome: str | None

    @property
    def complete(self) -> bool:
        """Whether the code is to be had."""
        return self.outcome is not None or self.done >= self.target


@dataclass(frozen=True)
class WayBack:
    """The end of a submission: what is said, the code if the study has one for it, and the link if there is one."""

    outcome: str
    words: str
    code: str | None
    link: str | None


def find(db: Session, slug: str) -> Panel:
    """The study behind an address, or NotFound."""
    found = db.scalar(select(Panel).where(Panel.slug == slug))
    if found is None:
        raise NotFound(_("There is no such study. Please check the link with the panel that sent you."))
    return found


def arrival(panel: Panel, query: Mapping[str, str]) -> Arrival:
    """Read the link; BadInput for one that lacks what it must say."""
    names: dict[str, str] = panel.settings["parameters"]
    participant = _identifier(names["participant"], query)
    submission = _identifier(names["submission"], query) if "submission" in names else participant
    study = query.get(names["study"], "")[:200] if "study" in names else ""
    wanted = panel.settings.get("study")
    if wanted and study != wanted:
        raise BadInput(_("This link belongs to another study. Please open the study anew at the panel that sent you."))
    captured = {name: query[name][:MAX_CAPTURED_CHARS] for name in panel.settings["captured"] if name in query}
    if any("\0" in value for value in (study, *captured.values())):
        raise BadInput(_("This link is damaged. Please open the study anew at the panel that sent you."))
    return Arrival(participant, submission, study or None, captured)


def _identifier(name: str, query: Mapping[str, str]) -> str:
    value = query.get(name, "")
    # Prolific's own preview leaves the places of its link as they are: {{%PROLIFIC_PID%}}.
    if not _IDENTIFIER.fullmatch(value):
        raise BadInput(
            _("This link lacks {name}. Please open the study anew at the panel that sent you.", name=name), field=name
        )
    return value


def person_of(db: Session, panel: Panel, participant: str) -> Person | None:
    """The account of a participant, if they were here before."""
    known = (
        select(Person)
        .join(PanelSubmission, PanelSubmission.person_id == Person.id)
        .join(Panel, Panel.id == PanelSubmission.panel_id)
        .where(PanelSubmission.participant == participant)
        .order_by(PanelSubmission.id)
        .limit(1)
    )
    same = Panel.kind == "prolific" if panel.kind == "prolific" else Panel.id == panel.id
    return db.scalar(known.where(same))


def enter(db: Session, panel: Panel, arrived: Arrival) -> tuple[Person, PanelSubmission]:
    """The participant's account and submission, made at the first visit. Conflict when the submission is over."""
    family = "prolific" if panel.kind == "prolific" else str(panel.id)
    leases.lock(db, f"participant:{family}:{arrived.participant}")
    lock_submission(db, panel, arrived.submission)
    submission = find_submission(db, panel, arrived.submission)
    if submission is None:
        if panel.closed_at is not None:
            raise Conflict(_("This study takes no more people. Please return your submission at the panel."))
        person = person_of(db, panel, arrived.participant) or _new_person(db)
        submission = PanelSubmission(
            panel_id=panel.id,
            person_id=person.id,
            participant=arrived.participant,
            study=arrived.study,
            external_id=arrived.submission,
            captured=arrived.captured,
        )
        db.add(submission)
        db.flush()
        _let_in(db, panel, person)
        follow_events(db, panel, submission)
    if submission.participant != arrived.participant or submission.person_id is None:
        raise NotAllowed(
            _("This link belongs to somebody else. Please open the study anew at the panel that sent you.")
        )
    if submission.status in SETTLED and submission.outcome is None:
        raise Conflict(_over(submission.status))
    return people.get_person(db, submission.person_id), submission


def _over(status: str) -> str:
    if status == "returned":
        return _("You returned this submission at the panel, so it is over here too. What you did until then is kept.")
    if status == "timed_out":
        return _("The panel's time for this submission has run out. Please write to it if you had finished your work.")
    return _("This submission is settled at the panel already, so there is nothing more to do for it.")


def _new_person(db: Session) -> Person:
    """A name of no meaning: what a panel calls its people is no business of other people here."""
    return people.create_person(db, f"Participant {secrets.token_hex(3)}", ["crowdworker"])


def _let_in(db: Session, panel: Panel, person: Person) -> None:
    """Who comes by a study's link is a member of a campaign that takes only members."""
    campaign = db.get_one(Campaign, panel.campaign_id)
    if campaign.access == "members":
        db.execute(
            insert(Membership).values(person_id=person.id, campaign_id=campaign.id).on_conflict_do_nothing(),
        )


def lock_submission(db: Session, panel: Panel, external_id: str) -> None:
    """A visit and a message of the panel about it take turns, or each could miss the other."""
    leases.lock(db, f"submission:{panel.id}:{external_id}")


def find_submission(db: Session, panel: Panel, external_id: str) -> PanelSubmission | None:
    """The submission by the panel's own number."""
    return db.scalar(
        select(PanelSubmission).where(PanelSubmission.panel_id == panel.id, PanelSubmission.external_id == external_id),
        execution_options={"populate_existing": True},
    )


def follow_events(db: Session, panel: Panel, submission: PanelSubmission) -> WebhookEvent | None:
    """Let the submission stand as the newest message of its panel says, in whatever order they came; that message."""
    events = db.scalars(
        select(WebhookEvent).where(
            WebhookEvent.panel_id == panel.id,
            WebhookEvent.resource == submission.external_id,
            WebhookEvent.status.is_not(None),
        )
    ).all()
    newest = max(events, key=lambda event: (event.sent_at, STEP[event.status or ""], event.id), default=None)
    if newest is None or newest.status is None:
        return None
    # That somebody is at work is no news about a submission that has ended here.
    if not (submission.outcome is not None and newest.status in ("reserved", "active")):
        _stand(db, submission, newest.status, newest.sent_at)
    return newest


def _stand(db: Session, submission: PanelSubmission, status: str, at: datetime) -> None:
    before = submission.status
    submission.status, submission.status_at = status, at
    db.flush()
    # One that our own door has screened out holds nothing, and keeps its page with the code.
    told = status == "screened_out" and submission.outcome is None
    if (status in GIVEN_UP or told) and before != status:
        _give_up(db, submission, status if status in GIVEN_UP else "returned")


def _give_up(db: Session, submission: PanelSubmission, ended_as: str) -> None:
    """Everything that the person holds goes to others, unless another submission of theirs still works here."""
    panel = db.get_one(Panel, submission.panel_id)
    person = db.get(Person, submission.person_id) if submission.person_id is not None else None
    campaign = db.get_one(Campaign, panel.campaign_id)
    if person is None:
        return
    other = current(db, person, campaign)
    if other is not None and other[1].id != submission.id:
        return
    leases.give_up(db, person, campaign)
    working = select(PanelSubmission.id).where(
        PanelSubmission.person_id == person.id, PanelSubmission.status.not_in(SETTLED)
    )
    if person.password_hash is None and person.email is None and db.scalar(working.limit(1)) is None:
        people.end_sessions(db, person)
    work_time.end(db, person, campaign, ended_as)


def current(db: Session, person: Person, campaign: Campaign) -> tuple[Panel, PanelSubmission] | None:
    """The submission for which this person works in the campaign: the newest that was not given up."""
    row = db.execute(
        select(Panel, PanelSubmission)
        .join(PanelSubmission, PanelSubmission.panel_id == Panel.id)
        .where(
            PanelSubmission.person_id == person.id,
            Panel.campaign_id == campaign.id,
            PanelSubmission.status.not_in(GIVEN_UP),
        )
        .order_by(PanelSubmission.id.desc())
        .limit(1)
    ).first()
    return (row[0], row[1]) if row is not None else None


def study(db: Session, person: Person, campaign: Campaign) -> Study | None:
    """How the person's submission in this campaign stands; None for those whom no panel sent."""
    found = current(db, person, campaign)
    return _study(db, person, campaign, *found) if found is not None else None


def _study(db: Session, person: Person, campaign: Campaign, panel: Panel, submission: PanelSubmission) -> Study:
    done = kinds.made_by(db, person, campaign, submission.started_at)
    return Study(panel.slug, panel.settings["target"], done, submission.outcome)


def own(db: Session, person: Person, panel: Panel) -> tuple[Study, PanelSubmission]:
    """This person's newest submission to a study; NotFound for others."""
    submission = db.scalar(
        select(PanelSubmission)
        .where(PanelSubmission.person_id == person.id, PanelSubmission.panel_id == panel.id)
        .order_by(PanelSubmission.id.desc())
        .limit(1)
    )
    if submission is None:
        raise NotFound(_("You have no submission in this study. Please open it by the link at the panel."))
    if submission.status in SETTLED and submission.outcome is None:
        raise Conflict(_over(submission.status))
    return _study(db, person, db.get_one(Campaign, panel.campaign_id), panel, submission), submission


def finish(db: Session, person: Person, panel: Panel) -> PanelSubmission:
    """End one's submission: with the target reached, or because no work is left. Twice is once. Conflict while there is."""
    stands, submission = own(db, person, panel)
    if submission.outcome is not None:
        return submission
    campaign = db.get_one(Campaign, panel.campaign_id)
    early = _ended_at_the_door(db, person, campaign)
    if early is not None:
        return _complete(db, person, campaign, submission, early)
    if stands.done >= stands.target:
        return _complete(db, person, campaign, submission, "success")
    if _work_is_left(db, person, campaign):
        raise Conflict(
            _(
                "{done} of {target} answers are there so far, and there is more to do. Go on, or return the submission "
                "at the panel.",
                done=stands.done,
                target=stands.target,
            )
        )
    return _complete(db, person, campaign, submission, "nothing_left")


def _work_is_left(db: Session, person: Person, campaign: Campaign) -> bool:
    step = door.standing(db, person, campaign).step
    if dialogue.why_not(db, campaign) is not None or step == "daily_limit":
        return False
    if step != door.READY:  # they have not agreed or not taken the test yet, or left of themselves
        return True
    return campaign.way in ("chat", "prompts") or queue.offer(db, person, campaign) is not None


def screen_out(
    db: Session, person: Person, campaign: Campaign, outcome: str = "screened_out"
) -> PanelSubmission | None:
    """The study ends early for this person: `screened_out`, `failed_check` or `no_consent`. None for those of no panel."""
    assert outcome in WORDS
    found = current(db, person, campaign)
    if found is None:
        return None
    return _complete(db, person, campaign, found[1], outcome)


def settle(db: Session, person: Person, campaign: Campaign) -> Study | None:
    """After the door was closed on somebody: their submission ends with it. Who did not agree may think again first."""
    outcome = _ended_at_the_door(db, person, campaign)
    if outcome is not None and outcome != "no_consent":
        screen_out(db, person, campaign, outcome)
    return study(db, person, campaign)


def _ended_at_the_door(db: Session, person: Person, campaign: Campaign) -> str | None:
    membership = db.get(Membership, (person.id, campaign.id), populate_existing=True)
    if membership is None or membership.status not in ("screened_out", "excluded"):
        return None
    if membership.status == "excluded":
        return "failed_check"
    return "no_consent" if membership.reason == "consent" else "screened_out"


def _complete(
    db: Session, person: Person, campaign: Campaign, submission: PanelSubmission, outcome: str
) -> PanelSubmission:
    lock_submission(db, db.get_one(Panel, submission.panel_id), submission.external_id)
    db.refresh(submission)  # the panel may have said something while we waited
    if submission.outcome is not None or submission.status in SETTLED:
        return submission
    status = "screened_out" if outcome == "screened_out" else "awaiting_review"
    submission.outcome = outcome
    if submission.status in ("reserved", "active"):
        submission.status, submission.status_at = status, func.now()
    submission.completed_at = func.now()
    db.flush()
    db.refresh(submission)
    leases.give_up(db, person, campaign)
    work_time.end(db, person, campaign, "finished")
    return submission


def way_back(panel: Panel, submission: PanelSubmission) -> WayBack:
    """What a participant whose submission has ended takes back to the panel."""
    assert submission.outcome is not None
    code = panel.settings["codes"].get(submission.outcome)
    template = panel.settings["redirect"]
    link = None
    if template and (code is not None or "{code}" not in template):
        captured = {name: submission.captured.get(name, "") for name in panel.settings["captured"]}
        link = filled(
            template,
            captured
            | {
                "code": code or "",
                "outcome": submission.outcome,
                "participant": submission.participant,
                "submission": submission.external_id,
                "study": submission.study or "",
            },
        )
    return WayBack(submission.outcome, _(WORDS[submission.outcome]), code, link)
