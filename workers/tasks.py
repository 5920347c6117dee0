"""Every task: ids in, nothing out; the bodies are plain functions with tests of their own."""

from __future__ import annotations

from workers import jobs, mail, openings, rounds
from workers import schedule as schedules
from workers import sweep as sweeps
from workers.app import app, reply_worker
from workers.reply.answer import answer


@app.task(name="reply")
def reply(turn_id: int) -> None:
    answer(turn_id, reply_worker())


@app.task(name="advance_round")
def advance_round(round_id: int) -> None:
    rounds.advance(round_id)


@app.task(name="run_job")
def run_job(job_id: int) -> None:
    jobs.perform(job_id)


@app.task(name="sweep")
def sweep() -> None:
    sweeps.sweep()


@app.task(name="tick_schedule")
def tick_schedule() -> None:
    schedules.tick()


@app.task(name="prepare_openings")
def prepare_openings(campaign_id: int | None = None) -> None:
    openings.prepare(campaign_id)


@app.task(name="tidy")
def tidy() -> None:
    sweeps.tidy()


@app.task(name="send_sign_in_link")
def send_sign_in_link(request_id: int) -> None:
    mail.send_sign_in_link(request_id)
