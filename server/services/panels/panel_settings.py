"""What an admin says about a study at a panel: names of parameters, completion codes, target, and the way back.

Prolific is the adapter with everything filled in; the generic one takes the names and the address from the admin. The way
back is https, its host stands in the template itself, and what is filled in is URL-encoded: nobody who crafts a link can
send people elsewhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any
from urllib.parse import quote, urlsplit

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Campaign, Panel, PanelSubmission, Person
from server.services import audit
from server.services.campaigns import campaigns

KINDS = ("prolific", "generic")
# What each outcome's code has to mean at the panel, in the words of the admin's page.
OUTCOMES = {
    "success": "Finished: as many answers as the target. At Prolific the code of type “completed”.",
    "nothing_left": "There was no more work before the target, through no fault of the person: pay in full.",
    "screened_out": "Did not pass the test or the screening. At Prolific a code that pays the fixed screen-out amount.",
    "failed_check": "You excluded the person, because of failed checks say. At Prolific “failed attention check”.",
    "no_consent": "Did not agree to the conditions, so did no work. At Prolific “no consent”.",
}
PROLIFIC_PARAMETERS = {"participant": "PROLIFIC_PID", "submission": "SESSION_ID", "study": "STUDY_ID"}
PROLIFIC_RETURN = "https://app.prolific.com/submissions/complete?cc={code}"
PLACES = ("code", "outcome", "participant", "submission", "study")  # in a template; captured parameters beside these
MOST_ANSWERS = 100_000
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")


def checked(kind: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a panel from what was typed; BadInput names the field."""
    if kind not in KINDS:
        raise BadInput("Choose Prolific or another panel.", field="kind")
    settings: dict[str, Any] = {
        "target": _target(form.get("target", "")),
        "codes": _codes(form),
        "study": form.get("study", "").strip()[:200],
    }
    if kind == "prolific":
        return settings | {"parameters": dict(PROLIFIC_PARAMETERS), "captured": [], "redirect": PROLIFIC_RETURN}
    captured = [_parameter("captured", name) for name in re.split(r"[\s,]+", form.get("captured", "").strip()) if name]
    parameters = {
        name: _parameter(f"{name}_parameter", form.get(f"{name}_parameter", "").strip())
        for name in ("participant", "submission", "study")
        if name == "participant" or form.get(f"{name}_parameter", "").strip()
    }
    if len(captured) > 30 or len(set(captured)) != len(captured):
        raise BadInput("Name each captured parameter once, and at most 30.", field="captured")
    redirect = checked_template(form.get("redirect", ""), captured)
    return settings | {"parameters": parameters, "captured": captured, "redirect": redirect}


def _target(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MOST_ANSWERS:
        raise BadInput(f"The target is a whole number of answers from 1 to {MOST_ANSWERS:,}.", field="target")
    return int(text)


def _codes(form: Mapping[str, str]) -> dict[str, str]:
    codes = {outcome: form.get(f"code_{outcome}", "").strip() for outcome in OUTCOMES}
    for outcome, code in codes.items():
        if code and not _CODE.fullmatch(code):
            raise BadInput(
                "A code has 1 to 64 letters, digits, hyphens and underscores, as the panel shows it.",
                field=f"code_{outcome}",
            )
    if not codes["success"]:
        raise BadInput("Give the code of those who finish; without it nobody can be paid.", field="code_success")
    given = [code for code in codes.values() if code]
    if len(set(given)) != len(given):
        raise BadInput("Each outcome needs a code of its own, or the panel could not tell them apart.", field="codes")
    return {outcome: code for outcome, code in codes.items() if code}


def _parameter(field: str, name: str) -> str:
    if not _PARAMETER.fullmatch(name):
        raise BadInput(
            "The name of a parameter begins with a letter and has letters, digits, hyphens and underscores.",
            field=field,
        )
    return name


def checked_template(template: str, captured: list[str]) -> str:
    """The way back as an address with places like {code}; empty where people copy the code instead."""
    template = template.strip()
    if not template:
        return ""
    try:
        parts = urlsplit(template)
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"This is not an address with places: {error}.", field="redirect") from error
    if parts.scheme != "https" or not _HOST.fullmatch(parts.netloc):
        raise BadInput(
            "The way back begins with https:// and a host that is written out, without any place or password in it.",
            field="redirect",
        )
    if len(template) > 2000 or any(letter.isspace() or not letter.isprintable() for letter in template):
        raise BadInput("The way back has at most 2,000 characters and no blanks.", field="redirect")
    known = {*PLACES, *captured}
    for _text, name, spec, conversion in pieces:
        if name is not None and (name not in known or spec or conversion):
            raise BadInput(
                f"There is no place {{{name}}}; there are {', '.join('{' + each + '}' for each in sorted(known))}.",
                field="redirect",
            )
    return template


def filled(template: str, values: Mapping[str, str]) -> str:
    """The address with its places filled in, everything in them URL-encoded."""
    return template.format_map({name: quote(value, safe="") for name, value in values.items()})


def find(db: Session, slug: str) -> Panel:
    """The study, or NotFound."""
    found = db.scalar(select(Panel).where(Panel.slug == slug))
    if found is None:
        raise NotFound(f"There is no study {slug!r}; the page Panels lists those that exist.")
    return found


def create(db: Session, admin: Person | None, form: Mapping[str, str]) -> Panel:
    """Make a study; Conflict when its slug is taken."""
    slug, kind = form.get("slug", "").strip(), form.get("kind", "")
    if not _SLUG.fullmatch(slug):
        raise BadInput("The slug has 1 to 63 small letters, digits and hyphens.", field="slug")
    settings = checked(kind, form)
    try:
        campaign = campaigns.find_campaign(db, form.get("campaign", ""))
    except NotFound as error:
        raise BadInput("Choose the campaign in which the people work.", field="campaign") from error
    values = {
        "slug": slug,
        "name": _name(form),
        "kind": kind,
        "campaign_id": campaign.id,
        "settings": settings,
        "created_by_id": admin.id if admin else None,
    }
    made: Panel | None = db.scalar(
        insert(Panel).values(values).on_conflict_do_nothing(index_elements=["slug"]).returning(Panel)
    )
    if made is None:
        raise Conflict(f"There is already a study {slug!r}; choose another slug.", field="slug")
    audit.record(db, admin, "panel.create", "panel", made.id, slug=slug, kind=kind, campaign=campaign.slug)
    return made


def change(db: Session, admin: Person | None, panel: Panel, form: Mapping[str, str]) -> None:
    """Other codes, target, parameters or name. Kind and campaign stay: submissions were made under them."""
    settings = panel.settings | checked(panel.kind, form)
    name = _name(form)
    changed = sorted(key for key, value in settings.items() if panel.settings.get(key) != value)
    if changed or name != panel.name:
        panel.settings, panel.name = settings, name
        audit.record(db, admin, "panel.update", "panel", panel.id, changed=changed, name=name)
    db.flush()


def _name(form: Mapping[str, str]) -> str:
    name = form.get("name", "").strip()
    if not 1 <= len(name) <= 200:
        raise BadInput("The name has 1 to 200 characters.", field="name")
    return name


def set_secret(db: Session, admin: Person | None, panel: Panel, secret: str = "") -> str:
    """A new secret for what the panel sends; Prolific's own is pasted, without one it is made. The old one is void at once."""
    secret = secret.strip()
    if not secret and panel.kind == "prolific":
        raise BadInput(
            "Prolific makes the secret; paste it here, or let `whetstone panel connect` do it.", field="secret"
        )
    if secret and not 16 <= len(secret) <= 500:
        raise BadInput("A secret has 16 to 500 characters.", field="secret")
    panel.webhook_secret = secret or secrets.token_urlsafe(32)
    audit.record(db, admin, "panel.secret", "panel", panel.id)
    db.flush()
    return panel.webhook_secret


def close(db: Session, admin: Person | None, panel: Panel, *, closed: bool) -> None:
    """Take no new participants (those who are in may finish), or take them again."""
    if closed == (panel.closed_at is not None):
        return
    db.execute(update(Panel).where(Panel.id == panel.id).values(closed_at=func.now() if closed else None))
    db.refresh(panel)
    audit.record(db, admin, "panel.close" if closed else "panel.open", "panel", panel.id)


@dataclass(frozen=True)
class Listed:
    """One study of the list."""

    panel: Panel
    campaign: Campaign
    submissions: int
    finished: int


def listed(db: Session) -> list[Listed]:
    """All studies, the newest first."""
    rows = db.execute(
        select(
            Panel,
            Campaign,
            func.count(PanelSubmission.id),
            func.count(PanelSubmission.id).filter(PanelSubmission.outcome == "success"),
        )
        .join(Campaign, Campaign.id == Panel.campaign_id)
        .outerjoin(PanelSubmission, PanelSubmission.panel_id == Panel.id)
        .group_by(Panel.id, Campaign.id)
        .order_by(Panel.id.desc())
    )
    return [Listed(*row) for row in rows]
