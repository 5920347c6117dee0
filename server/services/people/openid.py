"""OpenID Connect: the authorization code flow with PKCE, as one provider after another is asked to say who somebody is.

    begin    an address at the provider, and a sealed note for the browser: state, nonce, verifier, where to go on to
    finish   the code for an ID token; its signature by the provider's published keys, issuer, audience, times and nonce

Nothing here touches the database, so that none of its connections waits for a provider. The note is a cookie: only the
browser that began can finish, and only once it shows the state that it was given. What is believed of the provider's answer
is the ID token alone; an e-mail address counts only where the provider says that it has verified it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from server.errors import NotFound, NotSignedIn, Unavailable
from server.language import _, later
from server.settings import Settings
from server.ways_in import LOOPBACK, Provider

SCOPES = "openid email profile"
# What signs with a key that only the provider has. Not HS256, whose key we would have too, and never "none".
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
NOTE_SECONDS = 600  # to sign in at the provider
LEEWAY_SECONDS = 60  # between its clock and ours
KEEP_SECONDS = 3600  # what a provider publishes of itself
KEYS_AGAIN_SECONDS = 30  # after which a key that is not known may be one that is new
TIMEOUT_SECONDS = 10
MOST_BYTES = 1_000_000
AGAIN = later("Signing in there did not work out. Please begin again.")


@dataclass(frozen=True)
class Note:
    """What the browser keeps while its person is at the provider."""

    provider: str
    state: str
    nonce: str
    verifier: str
    next_path: str
    invitation: str
    link: bool  # to the account that is signed in here
    at: float


@dataclass(frozen=True)
class Claims:
    """Who the provider says that somebody is. `email` only if it is verified."""

    issuer: str
    subject: str
    name: str
    email: str | None


@dataclass
class _Published:
    """What a provider says of itself, and when we read it."""

    metadata: dict[str, Any]
    read_at: float
    keys: KeySet | None = None
    keys_at: float = 0.0


def find(settings: Settings, slug: str) -> Provider:
    """The provider of an address, or NotFound."""
    found = next((each for each in settings.providers if each.slug == slug), None)
    if found is None:
        raise NotFound(_("This site has no such way to sign in."))
    return found


def callback(settings: Settings, provider: Provider) -> str:
    """Where the provider sends people back to; what is entered there as the redirect URI."""
    return f"{settings.public_url}/sign-in/openid/{provider.slug}/callback"


def begin(
    settings: Settings, provider: Provider, next_path: str = "/", invitation: str = "", *, link: bool = False
) -> tuple[str, str]:
    """The address at the provider to go to, and the sealed note for the browser."""
    published = _published(provider)
    note = Note(
        provider=provider.slug,
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        next_path=next_path[:1000],
        invitation=invitation[:200],
        link=link,
        at=time.time(),
    )
    challenge = base64.urlsafe_b64encode(hashlib.sha256(note.verifier.encode()).digest()).rstrip(b"=").decode()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": callback(settings, provider),
            "scope": SCOPES,
            "state": note.state,
            "nonce": note.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    address = _endpoint(published, provider, "authorization_endpoint")
    return f"{address}{'&' if '?' in address else '?'}{query}", _seal(settings, note)


def read_note(settings: Settings, provider: Provider, sealed: str | None, state: str) -> Note:
    """The note of the browser that comes back; NotSignedIn when it is not the one that went, or too late."""
    text, _dot, seal = (sealed or "").rpartition(".")
    if not hmac.compare_digest(_seal_of(settings, text), seal.encode()):
        raise NotSignedIn(_(AGAIN))
    note = Note(**json.loads(base64.urlsafe_b64decode(text + "==")))
    fits = note.provider == provider.slug and hmac.compare_digest(note.state.encode(), state.encode())
    if not fits or not 0 <= time.time() - note.at <= NOTE_SECONDS:
        raise NotSignedIn(_(AGAIN))
    return note


def _seal(settings: Settings, note: Note) -> str:
    text = base64.urlsafe_b64encode(json.dumps(asdict(note)).encode()).rstrip(b"=").decode()  # cookies quote "="
    return f"{text}.{_seal_of(settings, text).decode()}"


def _seal_of(settings: Settings, text: str) -> bytes:
    return hmac.new(settings.secret.encode(), b"openid\0" + text.encode(), hashlib.sha256).hexdigest().encode()


def finish(settings: Settings, provider: Provider, note: Note, code: str, issuer: str | None) -> Claims:
    """Change the code for an ID token and believe it, or not. `issuer` is what the answer itself says (RFC 9207)."""
    if issuer is not None and issuer != provider.issuer:
        raise NotSignedIn(_(AGAIN))
    published = _published(provider)
    said = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback(settings, provider),
        "code_verifier": note.verifier,
        "client_id": provider.client_id,
    }
    headers = {}
    methods = published.metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    if "client_secret_basic" in methods:
        pair = f"{quote(provider.client_id, safe='')}:{quote(provider.client_secret, safe='')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        said["client_secret"] = provider.client_secret
    answer = _ask("POST", _endpoint(published, provider, "token_endpoint"), data=said, headers=headers)
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise NotSignedIn(_(AGAIN))
    return _believed(provider, published, note, token)


def _believed(provider: Provider, published: _Published, note: Note, token: str) -> Claims:
    """What a token says, if the provider signed it for us, now, in answer to this very question."""
    rules = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": provider.issuer},
        sub={"essential": True},
        aud={"essential": True, "value": provider.client_id},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": note.nonce},
    )
    try:
        claims = _decoded(provider, published, token)
        rules.validate(claims)
    except (JoseError, ValueError, TypeError) as error:
        raise NotSignedIn(_(AGAIN)) from error
    audience, subject = claims["aud"], claims["sub"]
    others = isinstance(audience, list) and audience != [provider.client_id]
    if (others or "azp" in claims) and claims.get("azp") != provider.client_id:
        raise NotSignedIn(_(AGAIN))
    if not 1 <= len(subject) <= 255 or "\0" in subject:
        raise NotSignedIn(_(AGAIN))
    email = claims.get("email") if claims.get("email_verified") is True else None
    name = next(
        (text for key in ("name", "preferred_username") if isinstance(text := claims.get(key), str) and text.strip()),
        "",
    )
    return Claims(
        provider.issuer, subject, name.replace("\0", "").strip()[:200], email if isinstance(email, str) else None
    )


def _decoded(provider: Provider, published: _Published, token: str) -> dict[str, Any]:
    keys = _keys(provider, published)
    try:
        return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
    except (JoseError, ValueError):
        # The provider may have changed its keys since; whoever sends nonsense makes us ask for them only so often.
        if time.time() - published.keys_at < KEYS_AGAIN_SECONDS:
            raise
        published.keys = None
        return dict(jwt.decode(token, _keys(provider, published), algorithms=ALGORITHMS).claims)


def _keys(provider: Provider, published: _Published) -> KeySet:
    if published.keys is None:
        told = _ask("GET", _endpoint(published, provider, "jwks_uri"))
        usable = [key for key in told.get("keys", []) if isinstance(key, dict) and key.get("use", "sig") == "sig"]
        published.keys = KeySet.import_key_set({"keys": [key for key in usable if key.get("kty") != "oct"]})
        published.keys_at = time.time()
    return published.keys


@lru_cache(maxsize=64)
def _shelf(_issuer: str) -> list[_Published]:
    """Where one provider's publication lies, if it was read; a list, so that an old one can be replaced."""
    return []


def _published(provider: Provider) -> _Published:
    """The provider's own description, of which the issuer must be the one that we were told."""
    shelf = _shelf(provider.issuer)
    found = shelf[0] if shelf else None
    if found is None or time.time() - found.read_at > KEEP_SECONDS:
        metadata = _ask("GET", provider.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if metadata.get("issuer") != provider.issuer:
            raise Unavailable(
                _("{name} cannot be used to sign in at the moment. Please try another way.", name=provider.name)
            )
        found = _Published(metadata, time.time())
        shelf[:] = [found]
    return found


def _endpoint(published: _Published, provider: Provider, name: str) -> str:
    """One of the provider's addresses; https, or this machine."""
    address = published.metadata.get(name)
    parts = urlsplit(address) if isinstance(address, str) else None
    if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise Unavailable(
            _("{name} cannot be used to sign in at the moment. Please try another way.", name=provider.name)
        )
    return str(address)


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an answer like any other: followed, it could lead into our own network."""

    def redirect_request(self, *_: object) -> None:
        return None


def _ask(
    method: str, address: str, data: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """A JSON object from the provider."""
    body = urlencode(data).encode() if data is not None else None
    request = Request(address, body, {"Accept": "application/json", **(headers or {})}, method=method)
    try:
        try:
            with build_opener(_NoRedirects()).open(request, timeout=TIMEOUT_SECONDS) as answer:
                status, text = answer.status, answer.read(MOST_BYTES)
        except HTTPError as refused:
            status, text = refused.code, refused.read(MOST_BYTES)
        told = json.loads(text)
    except (OSError, HTTPException, ValueError) as error:
        raise Unavailable(_("The other site did not answer as expected. Please try again, or another way.")) from error
    if status in (400, 401, 403) and method == "POST":  # the code is spent, or our own secret is wrong
        raise NotSignedIn(_(AGAIN))
    if status != HTTPStatus.OK or not isinstance(told, dict):
        raise Unavailable(_("The other site did not answer as expected. Please try again, or another way."))
    return told
