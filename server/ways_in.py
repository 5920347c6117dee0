"""Ways to sign in beside the password, as the environment sets them up: the mail server, and OpenID Connect providers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SMTP_PORTS = {"smtp": 587, "smtps": 465}
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
_ADDRESS = re.compile(r"(?:[^<>\r\n\"]{0,200} <)?[^@\s<>]{1,64}@[^@\s<>]{1,190}>?")


@dataclass(frozen=True)
class Mail:
    """Where mail is handed over, and from whom it is.

    `smtps://` speaks TLS from the start; `smtp://` turns to it (STARTTLS), and without it goes only to this machine.
    """

    url: str = field(repr=False)
    sender: str

    @property
    def parts(self) -> SplitResult:
        """The address taken apart."""
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """The server's name."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The server's port; submission's own where none is given."""
        return self.parts.port or SMTP_PORTS[self.parts.scheme]

    @property
    def account(self) -> tuple[str, str] | None:
        """User and password, if the server asks for them."""
        user = self.parts.username
        return (unquote(user), unquote(self.parts.password or "")) if user else None


@dataclass(frozen=True)
class Provider:
    """An OpenID Connect provider. `slug` stands in addresses and variables; `open` lets people without an invitation in."""

    slug: str
    name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    open: bool = False


def mail_of(url: str | None, sender: str | None) -> Mail | None:
    """The mail server, if one is set up; ValueError with a sentence for one that cannot be."""
    if url is None and sender is None:
        return None
    if url is None or sender is None:
        one, other = (
            ("WHETSTONE_SMTP_URL", "WHETSTONE_MAIL_FROM") if url else ("WHETSTONE_MAIL_FROM", "WHETSTONE_SMTP_URL")
        )
        raise ValueError(f"{one} is set and {other} is not: set both to send mail, or neither.")
    try:
        parts = urlsplit(url)
        known = parts.scheme in SMTP_PORTS and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError("WHETSTONE_SMTP_URL must be smtp://user:password@host:587 or smtps://user:password@host:465.")
    if not _ADDRESS.fullmatch(sender):
        raise ValueError(f"WHETSTONE_MAIL_FROM is {sender!r}; give an address, or Name <address>.")
    return Mail(url, sender)


def providers_of(names: str, given: Mapping[str, str]) -> tuple[Provider, ...]:
    """The providers that WHETSTONE_OPENID names, each by its own variables."""
    slugs = [slug for slug in re.split(r"[\s,]+", names) if slug]
    if len(set(slugs)) != len(slugs):
        raise ValueError("WHETSTONE_OPENID names a provider twice.")
    return tuple(_provider(slug, given) for slug in slugs)


def _provider(slug: str, given: Mapping[str, str]) -> Provider:
    if not _PROVIDER.fullmatch(slug):
        raise ValueError(f"WHETSTONE_OPENID names {slug!r}; a short name has small letters, digits, - and _.")
    prefix = variables(slug)
    missing = [name for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET") if not given.get(prefix + name)]
    if missing:
        raise ValueError(f"WHETSTONE_OPENID names {slug}, so {prefix}{missing[0]} is needed.")
    issuer = given[prefix + "ISSUER"]
    parts = urlsplit(issuer)
    if parts.query or parts.fragment or not parts.hostname:
        raise ValueError(f"{prefix}ISSUER is {issuer!r}; give the provider's issuer as it writes it.")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError(f"{prefix}ISSUER must begin with https://; only a provider on this machine may do without.")
    said = given.get(prefix + "OPEN", "0").lower()
    if said not in ("0", "1", "no", "yes", "false", "true"):
        raise ValueError(f"{prefix}OPEN is {said!r}; give 1 or 0.")
    return Provider(
        slug=slug,
        name=given.get(prefix + "NAME", slug.capitalize())[:60],
        issuer=issuer,
        client_id=given[prefix + "CLIENT_ID"],
        client_secret=given[prefix + "CLIENT_SECRET"],
        open=said in ("1", "yes", "true"),
    )


def variables(slug: str) -> str:
    """What the names of a provider's variables begin with."""
    return f"WHETSTONE_OPENID_{slug.upper().replace('-', '_')}_"


def environment(mail: Mail | None, providers: tuple[Provider, ...]) -> dict[str, str]:
    """The variables that say the same again."""
    found = {"WHETSTONE_SMTP_URL": mail.url, "WHETSTONE_MAIL_FROM": mail.sender} if mail else {}
    if providers:
        found["WHETSTONE_OPENID"] = ",".join(each.slug for each in providers)
    for each in providers:
        values = {
            "NAME": each.name, "ISSUER": each.issuer, "CLIENT_ID": each.client_id, "CLIENT_SECRET": each.client_secret,
            "OPEN": "1" if each.open else "0",
        }  # fmt: skip
        found |= {variables(each.slug) + name: value for name, value in values.items()}
    return found
