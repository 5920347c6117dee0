"""Whom a panel sent works in the campaigns of their studies and sees no others."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.errors import NotAllowed
from server.models import Person
from server.services.chat import dialogue
from server.services.door import members
from server.services.people import guests
from tests import factories

LINK = "?PROLIFIC_PID=5f1c0a9b8e7d6c5b4a392817&STUDY_ID=st1&SESSION_ID=s1"


def shown(client: TestClient) -> list[str]:
    return [each["slug"] for each in client.get("/api/campaigns").json()["campaigns"]]


def test_a_guest_sees_the_campaign_of_their_study_alone(client, db: Session, cast, sign_in) -> None:
    study, other = factories.campaign(db, slug="study"), factories.campaign(db, slug="other")
    panel = factories.panel(db, study)
    sign_in(cast.alice)
    assert sorted(shown(client)) == ["other", "study"]
    sign_in(None)
    client.get(f"/panel/{panel.slug}{LINK}")
    guest = db.query(Person).filter(Person.name.startswith("Participant")).one()
    assert guests.only_campaigns(db, guest) == {study.id}
    assert shown(client) == ["study"]
    assert "/chat/other" not in client.get("/chat").text
    assert "whom its admins have chosen" in client.get("/chat/other", follow_redirects=True).text
    with pytest.raises(NotAllowed, match="whom its admins have chosen"):
        dialogue.send_message(db, guest, other, "Hello", "key-of-the-page")
    members.add(db, None, other, str(guest.id))
    assert sorted(shown(client)) == ["other", "study"]
    dialogue.send_message(db, guest, other, "Hello", "key-of-the-page")


def test_who_has_an_account_is_no_guest(db: Session, cast) -> None:
    assert guests.only_campaigns(db, cast.alice) is None
    assert guests.only_campaigns(db, factories.person(db, "Nameless", email=None)) is None
