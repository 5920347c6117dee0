"""One module a subject: parse, call one service, render a page. `ROUTERS` is what the application includes."""

from __future__ import annotations

from fastapi import APIRouter

from server.routes import (
    admin_campaigns,
    admin_conversations,
    admin_data,
    admin_notices,
    admin_pay,
    admin_people,
    admin_prompts,
    admin_reports,
    api_answers,
    api_chat,
    api_rounds,
    api_work,
    chat,
    chat_answers,
    comfort,
    health,
    home,
    jobs,
    language,
    me,
    rounds,
    session,
    snapshots,
)

ROUTERS: list[APIRouter] = [
    home.router,
    session.router,
    language.router,
    comfort.router,
    api_chat.router,
    api_work.router,
    api_answers.router,
    chat.router,
    chat_answers.router,
    me.router,
    health.router,
    admin_data.router,
    admin_conversations.router,
    admin_people.router,
    admin_pay.router,
    admin_notices.router,
    admin_prompts.router,
    admin_reports.router,
    admin_campaigns.router,
    jobs.router,
    rounds.router,
    api_rounds.router,
    snapshots.router,
]
