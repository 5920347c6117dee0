"""Signing in through the pages and the API; CSRF and origin; the cookie."""

from __future__ import annotations

import pytest

from server.routes.session import own_path
from server.services.people import invitations, people
from tests.conftest import ORIGIN

HTML = {"Accept": "text/html"}


def test_a_password_gives_a_guarded_cookie(client, db, cast) -> None:
    people.set_password(db, cast.alice, "correct horse")
    answer = client.post(
        "/sign-in", data={"email": cast.alice.email, "password": "correct horse", "next_path": "/chat"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/chat")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/", headers=HTML).text.count("Sign out") == 1


def test_a_wrong_password_keeps_the_address_and_says_so(client, cast) -> None:
    answer = client.post("/sign-in", data={"email": cast.alice.email, "password": "nonsense12"}, headers=HTML)
    assert answer.status_code == 401
    assert cast.alice.email in answer.text
    assert "do not fit together" in answer.text
    assert "set-cookie" not in answer.headers


def test_guessing_is_slowed_down(client, cast) -> None:
    body = {"email": cast.alice.email, "password": "nonsense12"}
    for _ in range(10):
        assert client.post("/api/session", json=body).status_code == 401
    answer = client.post("/api/session", json=body)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "goes_to"),
    [
        ("/chat/helpful", "/chat/helpful"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil", "/"),
        ("/a\n", "/"),
    ],
)
def test_signing_in_never_leads_to_another_site(path, goes_to) -> None:
    assert own_path(path) == goes_to


def test_opening_a_link_does_not_spend_it_and_posting_does(client, db, cast, settings) -> None:
    token = people.make_sign_in_link(db, settings, cast.alice)
    db.commit()
    assert client.get(f"/sign-in/{token}", headers=HTML).status_code == 200
    assert client.post(f"/sign-in/{token}").headers["location"] == "/"
    assert client.post(f"/sign-in/{token}", headers={"Origin": ORIGIN}).status_code == 401


def test_the_api_signs_in_and_out(client, db, cast, settings) -> None:
    token = people.make_sign_in_link(db, settings, cast.alice)
    db.commit()
    told = client.post("/api/session", json={"link": token}).json()
    assert told["person"] == {"id": cast.alice.id, "name": "Alice", "roles": ["crowdworker"]}
    assert client.delete("/api/session").status_code == 403
    assert client.delete("/api/session", headers={"X-CSRF-Token": told["csrf_token"]}).status_code == 204
    assert client.get("/api/campaigns").status_code == 401


def test_an_invitation_makes_an_account_and_signs_in(client, db, cast) -> None:
    _, token = invitations.make_invitation(db, ["crowdworker"], by=cast.ada)
    db.commit()
    assert "Make my account" in client.get(f"/invitation/{token}", headers=HTML).text
    body = {"name": "Grace", "email": "grace@example.org", "password": "short"}
    refused = client.post(f"/invitation/{token}", data=body, headers=HTML)
    assert refused.status_code == 422
    assert "10 to 200 characters" in refused.text
    assert 'value="Grace"' in refused.text
    accepted = client.post(f"/invitation/{token}", data=body | {"password": "long enough"})
    assert accepted.status_code == 303
    assert "Hello, Grace" in client.get("/", headers=HTML).text
    assert client.get(f"/invitation/{token}", headers=HTML).status_code == 404


def test_a_form_from_another_site_is_refused(client, cast, sign_in) -> None:
    csrf = sign_in(cast.alice)
    data = {"csrf_token": csrf}
    assert client.post("/sign-out", data=data, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/sign-in", data={}, headers={"Origin": "https://evil.example"}).status_code == 403
    client.headers.pop("X-CSRF-Token")
    assert client.post("/sign-out", data={"csrf_token": "wrong"}).status_code == 403
    assert client.post("/sign-out", data=data, headers={"Origin": ORIGIN}).status_code == 303
    assert client.get("/api/campaigns").status_code == 401


def test_every_answer_carries_the_security_headers(client) -> None:
    for path in ("/", "/static/style.css", "/nowhere", "/api/campaigns"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_body_without_a_stated_length_is_measured(client, cast, sign_in) -> None:
    sign_in(cast.alice)
    pieces = (b"x" * 100_000 for _ in range(11))
    answer = client.put("/api/drafts/message:1", content=pieces, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    stated = client.put("/api/drafts/message:1", content=b"x" * 1_100_000)
    assert (stated.status_code, stated.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("testserver", "http://testserver", 401),  # past the gate: only the password is wrong
        ("web:8000", "PUBLIC", 401),  # a proxy that asks under its own name
        ("web:8000", "https://evil.example", 403),
        ("testserver", "null", 403),
    ],
)
def test_an_origin_is_ours_by_the_hosts_name_or_the_public_address(client, settings, host, origin, status) -> None:
    headers = {"Host": host, "Origin": settings.public_url if origin == "PUBLIC" else origin}
    body = {"email": "nobody@example.org", "password": "nonsense12"}
    assert client.post("/api/session", json=body, headers=headers).status_code == status
