"""Asking for a link to sign in by e-mail. What is said and done is the same for every address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, AppSettings, CheckedOrigin, Db, Visitor
from server.errors import NotFound, WhetstoneError
from server.language import _
from server.pages import Page, render
from server.routes.session import network_address
from server.services.people import limits, sign_in_mails
from server.settings import Settings

router = APIRouter()


@dataclass(frozen=True)
class MailPage(Page):
    """The form; after it was sent, where to look."""

    template: ClassVar[str] = "session/mail.html"
    sent: bool
    minutes: int = sign_in_mails.MINUTES
    email: str = ""
    error: str = ""


def _offered(settings: Settings) -> None:
    if settings.mail is None:
        raise NotFound(_("This site sends no e-mail. Please sign in with your password or ask its admins for a link."))


@router.get("/sign-in/email")
def mail_page(request: Request, settings: AppSettings, who: AnyVisitor, sent: int = 0) -> Response:
    _offered(settings)
    return render(request, who, MailPage(title=_("Sign in by e-mail"), sent=bool(sent)))


@router.post("/sign-in/email")
def ask(
    request: Request,
    db: Db,
    settings: AppSettings,
    _from: CheckedOrigin,
    email: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    _offered(settings)
    try:
        limits.limit_sign_in_mail(settings, email, network_address(request))
        sign_in_mails.ask(db, email)
    except WhetstoneError as error:
        page = MailPage(title=_("Sign in by e-mail"), sent=False, email=email, error=error.message)
        return render(request, Visitor(None, None), page, status=error.status)
    return RedirectResponse("/sign-in/email?sent=1", status_code=HTTP_303_SEE_OTHER)
