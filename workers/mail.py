"""Handing mail over to the operator's server."""

from __future__ import annotations

import logging

from server.services.people import sign_in_mails
from server.services.people.post_office import send
from server.settings import Settings
from server.transaction import transaction_of
from workers.context import connected_settings

log = logging.getLogger("whetstone.mail")


def send_sign_in_link(request_id: int, settings: Settings | None = None) -> None:
    """Send the link that somebody asked for. Where the server is away, the sweep asks again; that link is then void."""
    settings = settings or connected_settings()
    if settings.mail is None:
        log.warning("A link by e-mail was asked for, and this worker has no WHETSTONE_SMTP_URL.")
        return
    with transaction_of(settings) as db:
        if sign_in_mails.claim(db, request_id) is None:
            return
    with transaction_of(settings) as db:
        letter = sign_in_mails.letter(db, request_id, settings.public_url)
        if letter is None:
            sign_in_mails.done(db, request_id)
            return
    try:
        send(settings.mail, letter.to, letter.subject, letter.text)
    except OSError as error:  # smtplib's errors are among them
        log.error("Mail was not handed over (%s); it is tried again while the wish is fresh.", error)
        return
    with transaction_of(settings) as db:
        sign_in_mails.done(db, request_id)
