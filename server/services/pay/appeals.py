"""Appeals: a person objects to a rejected entry of their ledger, once; an admin answers (`ledger.answer_appeal`)."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.language import _
from server.models import Appeal, LedgerEntry, Person

MAX_CHARS = 5000


def appeal(db: Session, person: Person, entry_id: int, text: str) -> Appeal:
    """Object to a rejection. NotFound for an entry of anybody else, Conflict when it is not rejected or was appealed before."""
    entry = db.scalar(
        select(LedgerEntry)
        .where(LedgerEntry.id == entry_id, LedgerEntry.person_id == person.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if entry is None:
        raise NotFound(_("There is no such line among your pay."))
    text = text.replace("\r\n", "\n").replace("\0", "").strip()
    if not text:
        raise BadInput(_("Please say why you object, in a few words."), field="text")
    if len(text) > MAX_CHARS:
        raise BadInput(_("An objection has at most {most} characters.", most=MAX_CHARS), field="text")
    earlier = db.scalar(select(Appeal).where(Appeal.ledger_entry_id == entry.id))
    if earlier is not None and earlier.text == text:
        return earlier  # the same request again
    if earlier is not None:
        raise Conflict(_("You have objected to this line before. The answer stands beside it when it is there."))
    if entry.status != "rejected":
        raise Conflict(_("This line is not rejected any more. Reload the page."))
    made = Appeal(ledger_entry_id=entry.id, person_id=person.id, text=text)
    db.add(made)
    db.flush()
    return made
