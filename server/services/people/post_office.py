"""Speaking SMTP: one message to one address, over TLS wherever it leaves this machine."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from server.ways_in import LOOPBACK, Mail

TIMEOUT_SECONDS = 20


class NoTls(smtplib.SMTPException):
    """The server does not offer TLS, and it is not on this machine."""


class NoAddress(smtplib.SMTPException):
    """Mail cannot be addressed so."""


@contextmanager
def connection(mail: Mail) -> Iterator[smtplib.SMTP]:
    """A connection that is encrypted and signed in to, as far as the server asks for it."""
    context = ssl.create_default_context()
    if mail.parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_SECONDS)
    with server:
        if mail.parts.scheme == "smtp":
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=context)
            elif mail.host not in LOOPBACK:
                raise NoTls(f"{mail.host} does not offer STARTTLS, and mail goes over no open line")
        if mail.account is not None:
            server.login(*mail.account)
        yield server


def send(mail: Mail, to: str, subject: str, text: str) -> None:
    """Hand one message over; OSError (smtplib's errors are among them) when that was not possible."""
    message = EmailMessage()
    try:
        address = Address(addr_spec=to)  # exactly one: "a,b@c" as a header would be two
    except (ValueError, HeaderParseError, IndexError) as error:
        raise NoAddress(f"{to!r} is no address that mail can go to") from error
    message["From"], message["To"], message["Subject"] = mail.sender, address, subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2].rstrip(">"))
    message["Auto-Submitted"] = "auto-generated"  # no out-of-office replies, please (RFC 3834)
    message.set_content(text)
    with connection(mail) as server:
        server.send_message(message, to_addrs=[to])
