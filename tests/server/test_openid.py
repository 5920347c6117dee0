"""Signing in at an OpenID Connect provider: a real one in a process of its own, and tokens that must not be believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.errors import NotSignedIn, Unavailable
from server.models import Invitation, LoginSession, OpenIdAccount, Person
from server.services.people import invitations, openid
from server.services.people import people as accounts
from server.settings import Settings
from server.ways_in import Provider
from tests.conftest import ORIGIN, Cast

SignIn = Callable[[Person | None], str]
HTML = {"Accept": "text/html"}
SUBJECT = "248289761001"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The address of a provider that runs as a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _attempt in range(200):
        try:
            httpx.get(address + "/.well-known/openid-configuration")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(10)


def provider(issuer: str, **more: Any) -> Provider:
    values = {
        "slug": "lab",
        "name": "The Lab",
        "issuer": issuer,
        "client_id": "whetstone",
        "client_secret": "s3:cret/%",
    }
    return Provider(**(values | more))


@pytest.fixture
def offered(client: TestClient, settings: Settings, issuer: str) -> Callable[..., Settings]:
    """Offer the provider on the pages, with changes."""

    def offer(**more: Any) -> Settings:
        app: Any = client.app
        app.state.settings = replace(
            settings, providers=(provider(more.pop("issuer", issuer), **more),), public_url=ORIGIN
        )
        found: Settings = app.state.settings
        return found

    return offer


def user(issuer: str, subject: str, **claims: Any) -> None:
    httpx.put(f"{issuer}/users/{subject}", json=claims).raise_for_status()


def go_there(client: TestClient, query: str = "") -> str:
    """Begin here; the address at the provider."""
    gone = client.get(f"/sign-in/openid/lab{query}")
    assert gone.status_code == 303, gone.text
    return str(gone.headers["location"])


def come_back(address: str, subject: str = SUBJECT) -> str:
    """Sign in at the provider as its pages do; the path with which it sends back."""
    answer = httpx.post(address, data={"sub": subject})
    assert answer.status_code in (302, 303), answer.text
    back = answer.headers["location"]
    assert back.startswith(f"{ORIGIN}/sign-in/openid/lab/callback?")
    return str(back.removeprefix(ORIGIN))


def people(db: Session) -> list[Person]:
    db.expire_all()
    return list(db.scalars(select(Person).join(OpenIdAccount).order_by(Person.id)))


def test_an_open_provider_lets_people_in_and_knows_them_again(
    client: TestClient, db: Session, offered: Callable[..., Settings], issuer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(open=True)
    user(issuer, SUBJECT, name="Zoë", email="zoe@lab.example", email_verified=True)
    assert "Sign in with The Lab" in client.get("/sign-in").text
    asked: list[tuple[str, dict[str, Any]]] = []
    real = openid._ask

    def listen(method: str, address: str, **more: Any) -> dict[str, Any]:
        asked.append((address, more))
        return real(method, address, **more)

    monkeypatch.setattr(openid, "_ask", listen)
    address = go_there(client, "?next=/me")
    query = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    entered = client.get(come_back(address))
    assert (entered.status_code, entered.headers["location"]) == (303, "/me")
    assert client.get("/me").status_code == 200
    (_where, sent) = next(each for each in asked if "data" in each[1])
    digest = hashlib.sha256(sent["data"]["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == query["code_challenge"]
    assert sent["headers"]["Authorization"] == "Basic " + base64.b64encode(b"whetstone:s3%3Acret%2F%25").decode()
    (zoe,) = people(db)
    assert (zoe.name, zoe.email, zoe.roles, zoe.password_hash) == ("Zoë", "zoe@lab.example", ["crowdworker"], None)
    assert zoe.email_confirmed_at is not None
    # Another day, another name and address: the same person, as they are known here.
    client.cookies.clear()
    user(issuer, SUBJECT, name="Somebody", email="other@lab.example", email_verified=True)
    assert client.get(come_back(go_there(client))).headers["location"] == "/"
    (again,) = people(db)
    assert (again.id, again.name, again.email) == (zoe.id, "Zoë", "zoe@lab.example")


def test_without_an_invitation_nobody_new_comes_in(
    client: TestClient, db: Session, offered: Callable[..., Settings], issuer: str
) -> None:
    offered()
    user(issuer, "new", name="New")
    refused = client.get(come_back(go_there(client), "new"), headers=HTML)
    assert refused.status_code == 403 and "People join by invitation" in refused.text
    assert people(db) == [] and "whetstone_session" not in refused.headers.get("set-cookie", "")


def test_an_invitation_in_hand_makes_an_account_once(
    client: TestClient, db: Session, cast: Cast, offered: Callable[..., Settings], issuer: str
) -> None:
    offered()
    made, token = invitations.make_invitation(db, ["researcher"], by=cast.ada)
    db.commit()
    page = client.get(f"/invitation/{token}").text
    assert f"/sign-in/openid/lab?invitation={token}" in page
    user(issuer, "invited", email="unproven@lab.example", email_verified=False, preferred_username="inga")
    assert client.get(come_back(go_there(client, f"?invitation={token}"), "invited")).status_code == 303
    (inga,) = people(db)
    # An address that the provider has not verified is not taken.
    assert (inga.name, inga.roles, inga.email, inga.email_confirmed_at) == ("inga", ["researcher"], None, None)
    assert db.get_one(Invitation, made.id).uses == 1
    client.cookies.clear()
    user(issuer, "second")
    assert client.get(come_back(go_there(client, f"?invitation={token}"), "second")).status_code == 404
    assert len(people(db)) == 1


def test_an_address_that_has_an_account_takes_it_from_nobody(
    client: TestClient, db: Session, cast: Cast, offered: Callable[..., Settings], issuer: str, sign_in: SignIn
) -> None:
    """Whoever controls a provider could claim any address: only the account's own person joins the two."""
    offered(open=True)
    user(issuer, "claims-to-be-ada", email=str(cast.ada.email).upper(), email_verified=True)
    refused = client.get(come_back(go_there(client), "claims-to-be-ada"), headers=HTML)
    assert refused.status_code == 409 and "connect the two under Settings" in refused.text
    csrf = sign_in(cast.ada)
    assert "Connect The Lab" in client.get("/settings").text
    joined = client.get(come_back(go_there(client, f"?next=/settings&link={csrf}"), "claims-to-be-ada"))
    assert joined.headers["location"] == "/settings"
    assert "The Lab is connected" in client.get("/settings").text
    sign_in(None)
    assert client.get(come_back(go_there(client), "claims-to-be-ada")).status_code == 303
    assert client.get("/admin/people").status_code == 200


def test_connecting_needs_the_sessions_own_token_and_an_identity_that_is_free(
    client: TestClient, db: Session, cast: Cast, offered: Callable[..., Settings], issuer: str, sign_in: SignIn
) -> None:
    offered(open=True)
    assert client.get("/sign-in/openid/lab?link=x").status_code == 403
    user(issuer, "taken", name="Tom")
    assert client.get(come_back(go_there(client), "taken")).status_code == 303
    csrf = sign_in(cast.alice)
    assert client.get("/sign-in/openid/lab?link=forged").status_code == 403
    assert client.get(come_back(go_there(client, f"?link={csrf}"), "taken")).status_code == 409
    address = go_there(client, f"?link={csrf}")
    note = client.cookies.get("whetstone_openid")
    sign_in(None)
    client.cookies.set("whetstone_openid", note or "")
    assert client.get(come_back(address, "fresh")).status_code == 401  # signed out meanwhile
    assert [each.name for each in people(db)] == ["Tom"]


def test_a_disabled_person_stays_outside(
    client: TestClient, db: Session, offered: Callable[..., Settings], issuer: str, cast: Cast
) -> None:
    offered()
    db.add(OpenIdAccount(person_id=cast.bob.id, issuer=issuer, subject="bob"))
    accounts.disable_person(db, cast.bob)
    db.commit()
    assert client.get(come_back(go_there(client), "bob")).status_code == 403
    assert db.query(LoginSession).count() == 0


def test_only_the_browser_that_began_can_finish_and_only_once(
    client: TestClient, db: Session, offered: Callable[..., Settings], issuer: str
) -> None:
    settings = offered(open=True)
    user(issuer, SUBJECT)
    back = come_back(go_there(client))
    note = str(client.cookies.get("whetstone_openid"))
    client.cookies.clear()
    assert client.get(back).status_code == 401  # another browser, as after a link in a mail
    there = provider(issuer)
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert openid.read_note(settings, there, note, state).provider == "lab"
    text, _dot, seal = note.rpartition(".")
    forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(text + "==").replace(b'"link": false', b'"link": true'))
    for wrong, said in ((f"{forged.decode()}.{seal}", state), (note, "x"), (note, ""), ("", state), ("é.é", state)):
        with pytest.raises(NotSignedIn):
            openid.read_note(settings, there, wrong, said)
    with pytest.raises(NotSignedIn):
        openid.read_note(settings, replace(there, slug="other"), note, state)
    with pytest.raises(NotSignedIn):
        openid.read_note(replace(settings, secret="another secret of another installation"), there, note, state)
    client.cookies.set("whetstone_openid", note)
    assert client.get(f"{back}&iss=https://evil.example").status_code == 401
    client.cookies.set("whetstone_openid", note)
    assert client.get(back).status_code == 303
    client.cookies.set("whetstone_openid", note)
    assert client.get(back).status_code == 401  # the code is spent


def test_a_note_is_good_for_ten_minutes(settings: Settings, issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, real = provider(issuer), time.time
    address, note = openid.begin(settings, there)
    state = parse_qs(urlsplit(address).query)["state"][0]
    monkeypatch.setattr(time, "time", lambda: real() + 601)
    with pytest.raises(NotSignedIn):
        openid.read_note(settings, there, note, state)


def test_what_the_provider_refuses_is_said(client: TestClient, offered: Callable[..., Settings], issuer: str) -> None:
    offered()
    state = parse_qs(urlsplit(go_there(client)).query)["state"][0]
    said = client.get(f"/sign-in/openid/lab/callback?error=access_denied&state={state}", headers=HTML)
    assert said.status_code == 401 and "The Lab did not sign you in" in said.text
    assert client.get("/sign-in/openid/none").status_code == 404


@pytest.mark.parametrize("next_path", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_signing_in_leads_to_a_page_of_ours(
    client: TestClient, offered: Callable[..., Settings], issuer: str, next_path: str
) -> None:
    offered(open=True)
    user(issuer, SUBJECT)
    assert client.get(come_back(go_there(client, f"?next={next_path}"))).headers["location"] == "/"


def test_a_provider_that_is_away_or_another_one_says_so(
    client: TestClient, offered: Callable[..., Settings], issuer: str
) -> None:
    for wrong in ("http://127.0.0.1:1", issuer + "/"):
        offered(issuer=wrong)
        refused = client.get("/sign-in/openid/lab", headers=HTML)
        assert refused.status_code == 503 and "Sign in" in refused.text


KEY, OTHER_KEY = RSAKey.generate_key(2048, {"kid": "k1"}), RSAKey.generate_key(2048, {"kid": "k1"})
NOTE = openid.Note("lab", "state", "n-0S6", "verifier", "/", "", link=False, at=0)
ISSUER = "https://issuer.example"


def token(key: Any = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "7", "aud": "whetstone", "iat": now, "exp": now + 60, "nonce": "n-0S6"} | changes
    said = {name: value for name, value in claims.items() if value is not None}
    head = header or {"alg": "RS256", "kid": "k1"}
    return jwt.encode(head, said, key, algorithms=["RS256", "HS256", "none"])


def believed(value: str, monkeypatch: pytest.MonkeyPatch) -> openid.Claims:
    keys = KeySet([KEY]).as_dict(private=False)
    monkeypatch.setattr(openid, "_ask", lambda *_a, **_m: keys)
    published = openid._Published({"jwks_uri": f"{ISSUER}/keys"}, time.time())
    return openid._believed(provider(ISSUER), published, NOTE, value)


def test_a_token_of_the_provider_for_us_now_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = believed(token(email="a@b.example", email_verified=True, name=" Ann\0 "), monkeypatch)
    assert found == openid.Claims(ISSUER, "7", "Ann", "a@b.example")
    for unproven in ("true", 1, None, False):
        assert believed(token(email="a@b.example", email_verified=unproven), monkeypatch).email is None
    assert believed(token(aud=["whetstone", "other"], azp="whetstone"), monkeypatch).subject == "7"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"aud": "another client"}, {"aud": None}, {"aud": []},
        {"aud": ["whetstone", "other"]}, {"aud": ["whetstone", "other"], "azp": "other"}, {"azp": "other"},
        {"nonce": "replayed"}, {"nonce": None}, {"exp": int(time.time()) - 3600}, {"exp": None}, {"iat": None},
        {"iat": int(time.time()) + 3600}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 256},
    ],
)  # fmt: skip
def test_a_token_that_says_something_else_is_not_believed(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotSignedIn):
        believed(token(**changes), monkeypatch)


def test_a_token_that_the_provider_did_not_sign_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    public = KEY.as_pem(private=False)
    secret = OctKey.import_key("s3:cret/%" * 4)
    head, body, _signature = token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    hs256 = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').rstrip(b"=").decode()
    digest = hmac.new(public, f"{hs256}.{body}".encode(), hashlib.sha256).digest()
    shared = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    cases = [
        token(OTHER_KEY), f"{head}.{body}.", f"{none}.{body}.", "", "a.b", "a.b.c", token()[:-4] + "AAAA",
        # The public key as if it were a shared secret, and our own secret as a key.
        f"{hs256}.{body}.{shared}", token(secret, {"alg": "HS256"}),
    ]  # fmt: skip
    for wrong in cases:
        with pytest.raises(NotSignedIn):
            believed(wrong, monkeypatch)


def test_new_keys_of_a_provider_are_asked_for_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    new = RSAKey.generate_key(2048, {"kid": "k2"})
    answers = [KeySet([KEY]).as_dict(private=False), KeySet([KEY, new]).as_dict(private=False)]
    asked: list[str] = []

    def answer(_method: str, address: str, **_more: Any) -> dict[str, Any]:
        asked.append(address)
        return dict(answers[min(len(asked), 2) - 1])

    monkeypatch.setattr(openid, "_ask", answer)
    published = openid._Published({"jwks_uri": f"{ISSUER}/keys"}, time.time())
    there = provider(ISSUER)
    assert openid._believed(there, published, NOTE, token()).subject == "7"
    with_new = token(new, {"alg": "RS256", "kid": "k2"})
    with pytest.raises(NotSignedIn):  # just asked
        openid._believed(there, published, NOTE, with_new)
    published.keys_at -= 31
    assert openid._believed(there, published, NOTE, with_new).subject == "7"
    for _attempt in range(3):
        with pytest.raises(NotSignedIn):
            openid._believed(there, published, NOTE, token(OTHER_KEY))
    assert len(asked) == 2


@pytest.mark.parametrize(
    "address", [None, 7, "http://issuer.example/keys", "ftp://issuer.example/", "file:///etc/passwd"]
)
def test_endpoints_are_https(address: Any) -> None:
    with pytest.raises(Unavailable):
        openid._endpoint(openid._Published({"jwks_uri": address}, 0), provider(ISSUER), "jwks_uri")
