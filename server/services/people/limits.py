"""How often something may be tried. Counted in Redis under salted hashes: no address is ever stored in the clear."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from redis import Redis

from server.errors import TooMany
from server.language import ngettext
from server.settings import Settings

SIGN_IN_WINDOW_SECONDS = 600
SIGN_INS_PER_ACCOUNT = 10
# Many people can sit behind one address (an office, a university), so this one is wide.
SIGN_INS_PER_ADDRESS = 100
# Mail fills somebody else's box, so there is less of it; by address as wide as signing in.
MAILS_PER_ACCOUNT = 3
MAILS_PER_ADDRESS = 30
# Whoever knows a study's link can make up participants; a panel's people come from many addresses.
PANEL_VISITS_PER_ADDRESS = 60


@lru_cache(maxsize=4)
def redis_client(redis_url: str) -> Redis:
    """One connection pool per process; short time-outs, since a page waits."""
    return Redis.from_url(redis_url, socket_timeout=3, socket_connect_timeout=2, decode_responses=True)


def limit(settings: Settings, what: str, whom: str, most: int, window_seconds: int) -> None:
    """Count one attempt of `whom` at `what`; TooMany, with the seconds to wait, beyond `most` in a window."""
    assert settings.redis_url is not None
    digest = hmac.new(settings.secret.encode(), f"{what}\0{whom}".encode(), hashlib.sha256).hexdigest()[:32]
    key = f"limit:{what}:{digest}"
    with redis_client(settings.redis_url).pipeline(transaction=True) as pipe:
        pipe.incr(key)
        pipe.expire(key, window_seconds, nx=True)
        pipe.ttl(key)
        count, _, seconds_left = pipe.execute()
    if count > most:
        wait = max(1, int(seconds_left))
        sentence = ngettext(
            "Too many attempts. Please wait a minute and try again.",
            "Too many attempts. Please wait {n} minutes and try again.",
            max(1, -(-wait // 60)),
        )
        raise TooMany(sentence, retry_after=wait)


def limit_sign_in(settings: Settings, account: str, address: str) -> None:
    """Slow down guessing of passwords, by account and by network address."""
    limit(settings, "sign-in-account", account.strip().lower(), SIGN_INS_PER_ACCOUNT, SIGN_IN_WINDOW_SECONDS)
    limit(settings, "sign-in-address", address, SIGN_INS_PER_ADDRESS, SIGN_IN_WINDOW_SECONDS)


def limit_panel_visit(settings: Settings, address: str) -> None:
    """Slow down who would make up participants of a panel."""
    limit(settings, "panel-visit", address, PANEL_VISITS_PER_ADDRESS, SIGN_IN_WINDOW_SECONDS)


def limit_sign_in_mail(settings: Settings, account: str, address: str) -> None:
    """Slow down who would fill somebody's mailbox. Counted alike for addresses that have no account."""
    limit(settings, "mail-account", account.strip().lower(), MAILS_PER_ACCOUNT, SIGN_IN_WINDOW_SECONDS)
    limit(settings, "mail-address", address, MAILS_PER_ADDRESS, SIGN_IN_WINDOW_SECONDS)
