"""Everything that an operator can set, read once from the environment into one frozen value.

| variable              | what it is                                                       | when absent                                  |
|-----------------------|------------------------------------------------------------------|----------------------------------------------|
| WHETSTONE_HOME        | folder of the data, logs and artifacts of this installation      | `.whetstone` beside pyproject.toml           |
| PORT                  | where the web server listens                                     | 8000                                         |
| WHETSTONE_HOST        | on which interface                                               | 127.0.0.1                                    |
| DATABASE_URL          | PostgreSQL 15 or newer                                           | a private one in the home                    |
| REDIS_URL             | Redis 7 or newer, or Valkey                                      | a private one in the home                    |
| WHETSTONE_SECRET      | signs cookies and links; at least 32 characters                  | made at first start, only with no DATABASE_URL |
| WHETSTONE_PUBLIC_URL  | the address people type; https makes cookies secure              | http://HOST:PORT                             |
| WHETSTONE_ARTIFACTS   | folder of snapshots, runs, imports and exports                   | WHETSTONE_HOME/artifacts                     |
| WHETSTONE_TRAIN_PROCESSES | processes of a training job, one a GPU of the worker's host     | 1                                            |
| WHETSTONE_SMTP_URL    | mail server, smtp:// or smtps://, for links to sign in by e-mail | no mail is sent                              |
| WHETSTONE_MAIL_FROM   | the address that mail comes from                                 | no mail is sent                              |
| WHETSTONE_OPENID      | short names of OpenID Connect providers; each has variables of its own, see `server.ways_in` | none |
| WHETSTONE_DEMO        | 1 allows one-click sign-in links                                 | 0                                            |

The host has a prefix because some shells export HOST as the machine's own name, which would open the port to the network.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from server import ways_in

SECRET_LENGTH = 32  # characters; 32 of token_urlsafe are 192 bits
# What people leave standing from examples; compared without case and punctuation.
_EXAMPLE_WORDS = ("changeme", "secretsecret", "example", "password", "yoursecret", "whetstone", "insecure", "replaceme")


class OperatorError(Exception):
    """Something around us must be mended by whoever runs this; the message says what happened and what to do."""


class SettingsError(OperatorError):
    """The environment asks for something that cannot be; the message says what and how to mend it."""


@dataclass(frozen=True)
class Settings:
    """What this installation was told."""

    home: Path
    """Folder of the embedded data, the logs and, by default, the artifacts."""
    secret: str = field(repr=False)
    """Signs cookies and links; never shorter than SECRET_LENGTH."""
    public_url: str
    """Address that people type, without a slash at the end."""
    artifacts: str
    """Where snapshots, run folders and exports lie."""
    host: str = "127.0.0.1"
    """Interface that the web server listens on."""
    port: int = 8000
    """TCP port that the web server listens on."""
    database_url: str | None = field(default=None, repr=False)
    """PostgreSQL as SQLAlchemy writes it (`postgresql+psycopg://`); None until embedded services run."""
    redis_url: str | None = field(default=None, repr=False)
    """Redis as redis-py writes it (`redis://`, `rediss://` or `unix://`); None until embedded services run."""
    train_processes: int = 1
    """How many processes do a training job together, one a GPU of the training worker's host."""
    mail: ways_in.Mail | None = None
    """Where mail is handed over; None where no mail is sent."""
    providers: tuple[ways_in.Provider, ...] = ()
    """OpenID Connect providers with which people can sign in."""
    demo: bool = False
    """Whether one-click sign-in links may be made; only where the operator asked."""

    @property
    def embedded(self) -> bool:
        """Whether the private PostgreSQL and Valkey of the home are to be used."""
        return self.database_url is None

    @property
    def cookie_secure(self) -> bool:
        """Whether cookies travel by https alone; they must not over plain http, or nobody could sign in."""
        return urlsplit(self.public_url).scheme == "https"

    @property
    def log_folder(self) -> Path:
        """Where the supervised processes write."""
        return self.home / "logs"

    def connected(self, database_url: str, redis_url: str) -> "Settings":
        """The same settings, with the addresses of services that run now."""
        return replace(self, database_url=_postgres_address(database_url), redis_url=redis_url)

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these same settings."""
        if self.database_url is None or self.redis_url is None:
            raise SettingsError("The services have no address yet; start them before the processes that use them.")
        return {
            "WHETSTONE_HOME": str(self.home),
            "WHETSTONE_HOST": self.host,
            "PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "WHETSTONE_SECRET": self.secret,
            "WHETSTONE_PUBLIC_URL": self.public_url,
            "WHETSTONE_ARTIFACTS": self.artifacts,
            "WHETSTONE_TRAIN_PROCESSES": str(self.train_processes),
            "WHETSTONE_DEMO": "1" if self.demo else "0",
            **ways_in.environment(self.mail, self.providers),
        }


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; makes the home's secret at first start.

    Raises SettingsError with one sentence that an operator can act on.
    """
    given = {name: text.strip() for name, text in (os.environ if environ is None else environ).items() if text.strip()}
    home = Path(given.get("WHETSTONE_HOME") or default_home()).expanduser().absolute()
    port = _port(given.get("PORT", "8000"))
    host = given.get("WHETSTONE_HOST", "127.0.0.1")
    database_url, redis_url = given.get("DATABASE_URL"), given.get("REDIS_URL")
    if (database_url is None) != (redis_url is None):
        one, other = ("DATABASE_URL", "REDIS_URL") if database_url else ("REDIS_URL", "DATABASE_URL")
        raise SettingsError(
            f"{one} is set and {other} is not: set both to use your own services, or neither to use the private ones."
        )
    try:
        mail = ways_in.mail_of(given.get("WHETSTONE_SMTP_URL"), given.get("WHETSTONE_MAIL_FROM"))
        providers = ways_in.providers_of(given.get("WHETSTONE_OPENID", ""), given)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return Settings(
        mail=mail,
        providers=providers,
        home=home,
        host=host,
        port=port,
        database_url=database_url and _postgres_address(database_url),
        redis_url=redis_url and _redis_address(redis_url),
        secret=_secret(environ if environ is not None else os.environ, home, own_services=database_url is not None),
        public_url=_public_url(given.get("WHETSTONE_PUBLIC_URL") or f"http://{_address(host)}:{port}"),
        artifacts=_artifacts(given.get("WHETSTONE_ARTIFACTS") or str(home / "artifacts")),
        train_processes=_processes(given.get("WHETSTONE_TRAIN_PROCESSES", "1")),
        demo=_yes_or_no("WHETSTONE_DEMO", given.get("WHETSTONE_DEMO", "0")),
    )


def default_home() -> Path:
    """`.whetstone` in the clone, or in the current folder when the code is installed elsewhere."""
    clone = Path(__file__).resolve().parent.parent
    return (clone if (clone / "pyproject.toml").is_file() else Path.cwd()) / ".whetstone"


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise SettingsError(f"PORT is {text!r}; give a number from 1 to 65535.")
    return int(text)


def _processes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise SettingsError(f"WHETSTONE_TRAIN_PROCESSES is {text!r}; give the number of GPUs of a training worker.")
    return int(text)


def _address(host: str) -> str:
    """How a browser on this machine reaches `host`: listening everywhere is reached at the loopback address."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _postgres_address(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise SettingsError(
            f"DATABASE_URL begins with {scheme.partition(':')[0]!r}; Whetstone needs PostgreSQL: "
            "postgresql://user:password@host:5432/name."
        )
    return f"postgresql+psycopg://{rest}"


def _redis_address(url: str) -> str:
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in ("redis", "rediss", "unix"):
        raise SettingsError(
            f"REDIS_URL begins with {scheme.partition(':')[0]!r}; give redis://host:6379/0, rediss:// or unix:///path."
        )
    return url


def _artifacts(folder: str) -> str:
    """Absolute, so that a worker and a command started elsewhere mean the same folder."""
    if "://" in folder:
        raise SettingsError(
            f"WHETSTONE_ARTIFACTS is {folder!r}; give a folder. Object storage is used by mounting it as one."
        )
    return str(Path(folder).expanduser().absolute())


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"WHETSTONE_PUBLIC_URL is {url!r}; give the address people type, such as https://lab.org.")
    return url.rstrip("/")


def _yes_or_no(name: str, text: str) -> bool:
    if text.lower() not in ("0", "1", "no", "yes", "false", "true"):
        raise SettingsError(f"{name} is {text!r}; give 1 or 0.")
    return text.lower() in ("1", "yes", "true")


def _secret(environ: Mapping[str, str], home: Path, *, own_services: bool) -> str:
    """The given secret if it is worth the name; with embedded services and none given, the home's own."""
    given = environ.get("WHETSTONE_SECRET")
    how = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(48))"'
    if given is None:
        if own_services:
            raise SettingsError(f"DATABASE_URL is set, so WHETSTONE_SECRET is needed; {how}")
        return _home_secret(home)
    if len(given.strip()) < SECRET_LENGTH:
        raise SettingsError(f"WHETSTONE_SECRET is shorter than {SECRET_LENGTH} characters; {how}")
    plain = "".join(letter for letter in given.lower() if letter.isalnum())
    if len(set(given)) < 10 or any(word in plain for word in _EXAMPLE_WORDS):
        raise SettingsError(f"WHETSTONE_SECRET looks like an example or can be guessed; {how}")
    return given.strip()


def _home_secret(home: Path) -> str:
    """The secret of an embedded home, written once, readable by its owner alone."""
    path = home / "secret"
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
        text = path.read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"The home {home} cannot be used ({error.strerror}); make it writable or set WHETSTONE_HOME to another folder."
        ) from error
    if len(text) < SECRET_LENGTH:
        raise SettingsError(f"The file {path} holds no secret; remove it and start again (everyone signs in anew).")
    return text
