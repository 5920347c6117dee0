"""Accounts, sessions, links and invitations: what lets people in, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotAllowed, NotFound, NotSignedIn, TooMany
from server.models import LoginSession
from server.services.people import invitations, limits, people


def test_a_password_signs_in_and_a_wrong_one_says_the_same_as_an_unknown_address(db: Session) -> None:
    alice = people.create_person(db, "Alice", ["crowdworker"], email="Alice@example.org", password="correct horse")
    assert people.sign_in(db, "alice@EXAMPLE.org", "correct horse") is alice
    assert alice.password_hash and alice.password_hash.startswith("$argon2id$")
    sentences = set()
    for email, password in (("alice@example.org", "wrong horse!"), ("nobody@example.org", "correct horse")):
        with pytest.raises(NotSignedIn) as refused:
            people.sign_in(db, email, password)
        sentences.add(refused.value.message)
    assert len(sentences) == 1


def test_an_address_is_taken_whatever_its_letters(db: Session) -> None:
    people.create_person(db, "Alice", ["crowdworker"], email="alice@example.org")
    with pytest.raises(Conflict):
        people.create_person(db, "Other", ["crowdworker"], email="ALICE@example.org")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"roles": []}, "roles"),
        ({"roles": ["root"]}, "roles"),
        ({"email": "nonsense"}, "email"),
        ({"password": "short"}, "password"),
    ],
)
def test_bad_input_names_its_field(db: Session, values: dict, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        people.create_person(db, **({"name": "Alice", "roles": ["crowdworker"]} | values))
    assert refused.value.field == field


def test_only_the_hash_of_a_session_is_stored(db: Session, cast) -> None:
    token, csrf = people.start_session(db, cast.alice)
    found = people.find_session(db, token)
    assert found and found.person is cast.alice
    assert people.same_token(found.csrf_token, csrf)
    assert token not in found.token_hash
    assert people.find_session(db, found.token_hash) is None
    people.end_session(db, token)
    assert people.find_session(db, token) is None


def test_a_session_rolls_on_and_ends(db: Session, cast) -> None:
    token, _ = people.start_session(db, cast.alice)
    row = db.query(LoginSession).filter_by(person_id=cast.alice.id).one()
    row.expires_at = datetime.now(UTC) + timedelta(days=5)
    assert people.find_session(db, token) is row
    assert row.expires_at > datetime.now(UTC) + timedelta(days=13)
    row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    assert people.find_session(db, token) is None


def test_a_disabled_person_is_out_at_once(db: Session, cast) -> None:
    token, _ = people.start_session(db, cast.alice)
    people.disable_person(db, cast.alice)
    assert people.find_session(db, token) is None
    with pytest.raises(NotAllowed):
        people.start_session(db, cast.alice)
    people.enable_person(cast.alice)
    assert people.start_session(db, cast.alice)


def test_the_last_admin_stays(db: Session, cast) -> None:
    with pytest.raises(Conflict):
        people.disable_person(db, cast.ada)
    with pytest.raises(Conflict):
        people.set_roles(db, cast.ada, ["researcher"])
    people.set_roles(db, cast.rosa, ["researcher", "admin"])
    people.disable_person(db, cast.ada)
    assert cast.ada.disabled_at is not None


def test_a_link_works_once_and_only_in_a_demo(db: Session, cast, settings) -> None:
    token = people.make_sign_in_link(db, settings, cast.alice)
    assert people.use_sign_in_link(db, settings, token).id == cast.alice.id
    with pytest.raises(NotSignedIn):
        people.use_sign_in_link(db, settings, token)
    from dataclasses import replace

    plain = replace(settings, demo=False)
    with pytest.raises(NotAllowed):
        people.make_sign_in_link(db, plain, cast.alice)
    with pytest.raises(NotSignedIn):
        people.use_sign_in_link(db, plain, people.make_sign_in_link(db, settings, cast.alice))


def test_an_expired_link_does_not_work(db: Session, cast, settings) -> None:
    with pytest.raises(NotSignedIn):
        people.use_sign_in_link(db, settings, people.make_sign_in_link(db, settings, cast.alice, minutes=-1))


def test_an_invitation_serves_as_many_as_it_says(db: Session, cast) -> None:
    _, token = invitations.make_invitation(db, ["crowdworker"], by=cast.ada, max_uses=2)
    for number in range(2):
        guest = invitations.accept_invitation(db, token, "Guest", f"guest{number}@example.org", "long enough")
        assert guest.roles == ["crowdworker"]
    with pytest.raises(NotFound):
        invitations.accept_invitation(db, token, "Guest", "guest3@example.org", "long enough")


def test_a_withdrawn_invitation_lets_nobody_in(db: Session) -> None:
    invitation, token = invitations.make_invitation(db, ["researcher"])
    assert invitations.live_invitations(db) == [invitation]
    invitations.revoke_invitation(db, invitation.id)
    with pytest.raises(NotFound):
        invitations.find_invitation(db, token)
    assert invitations.live_invitations(db) == []


def test_attempts_are_counted_without_keeping_the_address(settings, redis) -> None:
    for _ in range(limits.SIGN_INS_PER_ACCOUNT):
        limits.limit_sign_in(settings, "alice@example.org", "203.0.113.9")
    with pytest.raises(TooMany) as refused:
        limits.limit_sign_in(settings, " ALICE@example.org", "203.0.113.9")
    assert 0 < refused.value.retry_after <= limits.SIGN_IN_WINDOW_SECONDS
    limits.limit_sign_in(settings, "bob@example.org", "203.0.113.9")
    keys = " ".join(redis.keys("*"))
    assert "203.0.113.9" not in keys
    assert "alice" not in keys
    assert all(redis.ttl(key) > 0 for key in redis.keys("limit:*"))
