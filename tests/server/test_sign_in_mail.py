"""Signing in by e-mail: a real SMTP server, a link that works once, and an answer that tells nothing."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.app import create_app
from server.db import session_factory
from server.errors import NotSignedIn
from server.models import Person, SignInLink, SignInRequest
from server.services.people import limits, people, post_office, sign_in_mails
from server.settings import Settings, SettingsError, load_settings
from server.ways_in import Mail
from tests import factories
from tests.conftest import Cast
from workers import mail as mail_worker

HTML = {"Accept": "text/html"}


class Box:
    """What the server took."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.envelopes: list[list[str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.letters.append(parsed)
        self.envelopes.append(envelope.rcpt_tos)
        return "250 taken"


class Server(Controller):
    """On a port of its own."""

    def __init__(self, box: Box, **more: Any) -> None:
        super().__init__(box, hostname="127.0.0.1", port=0, **more)

    def _trigger_server(self) -> None:  # it would knock at port 0
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def post(box: Box) -> Iterator[Mail]:
    server = Server(box)
    server.start()
    yield Mail(f"smtp://127.0.0.1:{server.port}", "Feedback <feedback@lab.example>")
    server.stop()


@pytest.fixture
def with_mail(settings: Settings, post: Mail, client: TestClient) -> Settings:
    app: Any = client.app
    app.state.settings = replace(settings, mail=post, demo=False, public_url="https://lab.example")
    found: Settings = app.state.settings
    return found


def link_in(letter: EmailMessage) -> str:
    body = letter.get_body(("plain",))
    assert body is not None
    found = re.search(r"https://lab\.example(/sign-in/[\w-]{43})\s", body.get_content())
    assert found is not None
    return found.group(1)


def test_a_link_arrives_signs_in_once_and_confirms_the_address(
    committed: str, settings: Settings, post: Mail, box: Box
) -> None:
    """The whole way: page, committed wish, worker, mail server, link."""
    whole = replace(settings, mail=post, demo=False, public_url="https://lab.example")
    with session_factory(committed).begin() as db:
        alice = factories.person(db, "Alice", email="Alice@Lab.example", language="de")
    with TestClient(create_app(whole), base_url="https://lab.example", follow_redirects=False) as client:
        assert "/sign-in/email" in client.get("/sign-in").text
        asked = client.post("/sign-in/email", data={"email": " alice@lab.EXAMPLE "})
        assert asked.headers["location"] == "/sign-in/email?sent=1"
        assert "a link is on its way" in client.get("/sign-in/email?sent=1").text
        with session_factory(committed)() as db:
            (wish,) = db.scalars(select(SignInRequest)).all()
        mail_worker.send_sign_in_link(wish.id, whole)
        mail_worker.send_sign_in_link(wish.id, whole)  # the message came twice
        (letter,) = box.letters
        assert letter["To"] == "Alice@Lab.example" and letter["From"] == "Feedback <feedback@lab.example>"
        path = link_in(letter)
        assert client.get(path).status_code == 200  # a scanner that opens it uses nothing up
        entered = client.post(path)
        assert entered.status_code == 303 and "Alice" in client.get("/settings").text
        client.cookies.clear()
        assert client.post(path).status_code == 401
    with session_factory(committed)() as db:
        assert db.get_one(Person, alice.id).email_confirmed_at is not None
        assert db.query(SignInRequest).count() == 0
        stored = db.scalars(select(SignInLink.token_hash)).one()
        assert stored not in path and path.rpartition("/")[2] not in stored


def wishes(db: Session) -> list[SignInRequest]:
    return list(db.scalars(select(SignInRequest).order_by(SignInRequest.id)))


def test_the_answer_is_the_same_for_every_address(
    client: TestClient, db: Session, cast: Cast, with_mail: Settings, sent_tasks: list[Any]
) -> None:
    cast.bob.email = "bob@lab.example"
    cast.mallory.email, cast.mallory.disabled_at = "gone@lab.example", dt.datetime.now(dt.UTC)
    db.commit()
    answers = []
    for address in ("bob@lab.example", "nobody@lab.example", "gone@lab.example"):
        answer = client.post("/sign-in/email", data={"email": address}, headers=HTML)
        answers.append((answer.status_code, dict(answer.headers), answer.content))
    assert answers[0] == answers[1] == answers[2]
    # And so is what was done: nobody was looked up, a wish was stored and one task sent for each.
    stored = wishes(db)
    assert [wish.email for wish in stored] == ["bob@lab.example", "nobody@lab.example", "gone@lab.example"]
    assert sent_tasks == [("send_sign_in_link", {"request_id": wish.id}) for wish in stored]
    assert db.query(SignInLink).count() == 0
    assert [sign_in_mails.letter(db, wish.id, "https://lab.example") is not None for wish in stored] == [
        True, False, False,
    ]  # fmt: skip


def test_nothing_is_looked_up_while_the_visitor_waits(
    client: TestClient, db: Session, cast: Cast, with_mail: Settings
) -> None:
    statements: dict[str, list[str]] = {}
    for address in (str(cast.bob.email), "nobody@lab.example"):
        seen = statements[address] = []

        def note(_c: Any, _cur: Any, statement: str, *_more: Any, seen: list[str] = seen) -> None:
            seen.append(statement)

        event.listen(db.get_bind(), "before_cursor_execute", note)
        client.post("/sign-in/email", data={"email": address})
        event.remove(db.get_bind(), "before_cursor_execute", note)
    one, other = statements.values()
    plain = [[each for each in seen if "SAVEPOINT" not in each] for seen in (one, other)]
    assert plain[0] == plain[1] and len(plain[0]) == 1 and not any("people" in each for each in one)


def test_asking_is_limited_for_every_address_alike(
    client: TestClient, db: Session, cast: Cast, with_mail: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (str(cast.bob.email), "nobody@lab.example"):
        statuses = [client.post("/sign-in/email", data={"email": address}).status_code for _ in range(5)]
        assert statuses == [303, 303, 303, 429, 429]
    monkeypatch.setattr(limits, "MAILS_PER_ADDRESS", 6)
    assert client.post("/sign-in/email", data={"email": "third@lab.example"}).status_code == 429
    assert len(wishes(db)) == 6


@pytest.mark.parametrize(
    "address", ["", "alice", "a b@c.example", "a@b@c", "x" * 250 + "@b.example", "a@b\r\nBcc: c@d"]
)
def test_what_is_no_address_is_said_at_its_field(
    client: TestClient, db: Session, with_mail: Settings, address: str
) -> None:
    refused = client.post("/sign-in/email", data={"email": address}, headers=HTML)
    assert refused.status_code == 422 and "is not an e-mail address" in refused.text
    assert wishes(db) == []


def test_without_a_mail_server_the_way_is_not_offered(client: TestClient) -> None:
    assert "/sign-in/email" not in client.get("/sign-in").text
    assert client.get("/sign-in/email").status_code == 404
    assert client.post("/sign-in/email", data={"email": "a@b.example"}).status_code == 404


def test_another_site_cannot_ask(client: TestClient, with_mail: Settings) -> None:
    evil = {"Origin": "https://evil.example"}
    assert client.post("/sign-in/email", data={"email": "a@b.example"}, headers=evil).status_code == 403


def test_a_link_ends_after_a_quarter_of_an_hour_and_those_of_a_demo_stay_in_the_demo(
    db: Session, cast: Cast, settings: Settings
) -> None:
    no_demo = replace(settings, demo=False)
    cast.alice.email = "alice@lab.example"
    tokens = []
    for _ in range(2):
        sign_in_mails.ask(db, "alice@lab.example")
        letter = sign_in_mails.letter(db, wishes(db)[-1].id, "https://lab.example")
        assert letter is not None
        tokens.append(link_in_text(letter.text))
    ends = db.scalars(select(SignInLink.expires_at - func.now())).all()
    assert ends == [dt.timedelta(minutes=15)] * 2
    assert people.use_sign_in_link(db, no_demo, tokens[0]) is cast.alice
    db.execute(update(SignInLink).values(expires_at=func.now()))
    with pytest.raises(NotSignedIn):
        people.use_sign_in_link(db, no_demo, tokens[1])
    demo = people.make_sign_in_link(db, settings, cast.alice)
    with pytest.raises(NotSignedIn):
        people.use_sign_in_link(db, no_demo, demo)
    assert people.use_sign_in_link(db, settings, demo) is cast.alice


def link_in_text(text: str) -> str:
    found = re.search(r"/sign-in/([\w-]{43})", text)
    assert found is not None
    return found.group(1)


def test_a_wish_is_met_again_while_it_is_fresh_and_forgotten_after(db: Session) -> None:
    sign_in_mails.ask(db, "a@b.example")
    (wish,) = wishes(db)
    db.info.pop("tasks")
    assert sign_in_mails.ask_again(db) == []  # its message may still come
    age(db, 21)
    assert sign_in_mails.ask_again(db) == [wish.id]
    assert db.info.pop("tasks") == [("send_sign_in_link", {"request_id": wish.id})]
    assert sign_in_mails.claim(db, wish.id) == wish.id
    assert sign_in_mails.claim(db, wish.id) is None and sign_in_mails.ask_again(db) == []
    for _attempt in range(3):
        db.execute(update(SignInRequest).values(claimed_at=func.now() - dt.timedelta(seconds=61)))
        assert sign_in_mails.ask_again(db) == [wish.id]
        assert sign_in_mails.claim(db, wish.id) == wish.id
    db.execute(update(SignInRequest).values(claimed_at=func.now() - dt.timedelta(seconds=61)))
    assert sign_in_mails.ask_again(db) == [] and sign_in_mails.claim(db, wish.id) is None
    assert sign_in_mails.clear(db) == 0
    age(db, 16 * 60)
    assert sign_in_mails.clear(db) == 1 and wishes(db) == []


def age(db: Session, seconds: int) -> None:
    db.execute(update(SignInRequest).values(created_at=func.now() - dt.timedelta(seconds=seconds)))
    db.expire_all()


def test_a_server_that_is_away_leaves_the_wish(committed: str, settings: Settings, post: Mail, box: Box) -> None:
    with session_factory(committed).begin() as db:
        factories.person(db, "Alice", email="alice@lab.example")
        sign_in_mails.ask(db, "alice@lab.example")
        number = wishes(db)[0].id
    away = replace(settings, mail=replace(post, url="smtp://127.0.0.1:1"))
    mail_worker.send_sign_in_link(number, away)
    with session_factory(committed).begin() as db:
        (wish,) = wishes(db)
        assert wish.attempts == 1
        wish.claimed_at = None
    mail_worker.send_sign_in_link(number, replace(away, mail=post))
    assert len(box.letters) == 1
    with session_factory(committed)() as db:
        assert wishes(db) == []


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for `name` that signs itself, and the server's side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path, secret = folder / "cert.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return path, context


def test_tls_and_the_account_are_used_and_a_stranger_is_not_trusted(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate(tmp_path, "localhost")
    given: list[tuple[bytes, bytes]] = []

    def allow(_server: Any, session: Any, _envelope: Any, _how: str, account: Any) -> AuthResult:
        assert isinstance(account, LoginPassword) and session.ssl is not None
        given.append((account.login, account.password))
        return AuthResult(success=account.password == b"p@ss/word")

    server = Server(
        box,
        tls_context=context,
        require_starttls=True,
        authenticator=allow,
        auth_required=True,
        auth_exclude_mechanism=["LOGIN"],
    )
    server.start()
    try:
        mail = Mail(f"smtp://me:p%40ss%2Fword@localhost:{server.port}", "feedback@lab.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            post_office.send(mail, "a@b.example", "Hello", "Grüße")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        post_office.send(mail, "a@b.example", "Grüße", "Grüße\n")
        with pytest.raises(OSError, match="530"):  # it wants an account
            post_office.send(replace(mail, url=f"smtp://localhost:{server.port}"), "a@b.example", "x", "x")
    finally:
        server.stop()
    (letter,) = box.letters
    body = letter.get_body(("plain",))
    assert body is not None and (letter["Subject"], body.get_content().strip()) == ("Grüße", "Grüße")
    assert given[0] == (b"me", b"p@ss/word")


def test_mail_leaves_this_machine_over_no_open_line(post: Mail, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_office, "LOOPBACK", ())
    with pytest.raises(post_office.NoTls):
        post_office.send(post, "a@b.example", "x", "x")
    assert box.letters == []


def test_one_letter_goes_to_one_address(post: Mail, box: Box) -> None:
    with pytest.raises(post_office.NoAddress):
        post_office.send(post, "a,victim@lab.example", "x", "x")
    assert box.envelopes == []


@pytest.mark.parametrize(
    "environ",
    [
        {"WHETSTONE_SMTP_URL": "smtp://mail.lab.example"},
        {"WHETSTONE_MAIL_FROM": "a@b.example"},
        {"WHETSTONE_SMTP_URL": "http://mail.lab.example", "WHETSTONE_MAIL_FROM": "a@b.example"},
        {"WHETSTONE_SMTP_URL": "smtp://mail:port", "WHETSTONE_MAIL_FROM": "a@b.example"},
        {"WHETSTONE_SMTP_URL": "smtp://mail.lab.example", "WHETSTONE_MAIL_FROM": "the lab"},
    ],
)
def test_settings_that_cannot_be_are_refused(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WHETSTONE_"):
        load_settings({"WHETSTONE_HOME": str(tmp_path), **environ})


def test_settings_of_mail_survive_the_way_to_the_worker(tmp_path: Path) -> None:
    given = {"WHETSTONE_SMTP_URL": "smtps://u:p%40x@mail.lab.example", "WHETSTONE_MAIL_FROM": "Lab <a@b.example>"}
    found = load_settings({"WHETSTONE_HOME": str(tmp_path), **given}).connected("postgresql://db/w", "redis://r/0")
    assert load_settings(found.environment()).mail == found.mail == Mail(*given.values())
    assert found.mail is not None and (found.mail.port, found.mail.account) == (465, ("u", "p@x"))
    assert "p%40x" not in repr(found)
