"""The Celery application of the workers and of beat: which settings carry our rule that the row is the truth.

    celery -A workers.app worker -Q reply,tick --pool=threads --concurrency=128
    celery -A workers.app worker -Q train --pool=prefork
    celery -A workers.app beat

A message is a nudge: work claims its row first, so a message that comes twice is done once, and the sweep sends again what was
lost. So messages are acknowledged late and never retried by Celery itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import worker_process_init, worker_ready, worker_shutdown

from server.db import engine_for
from server.transaction import QUEUES, celery_broker_url
from workers import broker
from workers.context import connected_settings

if TYPE_CHECKING:
    from workers.reply.worker import ReplyWorker

# Seconds until Redis hands out again what a worker took and did not acknowledge. Only a backstop behind the sweep, which asks
# again after 20 s for replies and 60 s for the rest; a step that takes longer is handed out again and finds its row claimed.
VISIBILITY_SECONDS = 600


def _application() -> Celery:
    settings = connected_settings()
    broker.outlive_lost_connections()
    celery = Celery("whetstone", broker=celery_broker_url(str(settings.redis_url)), include=["workers.tasks"])
    celery.conf.update(
        task_routes={task: {"queue": queue} for task, queue in QUEUES.items()},
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # their rows are claimed; they finish
        worker_proc_alive_timeout=60,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
        timezone="UTC",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for longer than a worker's patience by default
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
        },
        beat_schedule={
            # A message that waited longer than its period would only repeat the next one.
            "sweep": {"task": "sweep", "schedule": 5.0, "options": {"queue": "tick", "expires": 5}},
            "tidy": {"task": "tidy", "schedule": 60.0, "options": {"queue": "tick", "expires": 60}},
            "prepare_openings": {
                "task": "prepare_openings",
                "schedule": 60.0,
                "options": {"queue": "tick", "expires": 60},
            },
            "tick_schedule": {"task": "tick_schedule", "schedule": 60.0, "options": {"queue": "tick", "expires": 60}},
        },
    )
    return celery


app = _application()


@worker_process_init.connect
def _own_connections(**_: Any) -> None:
    """A forked child must not share its parent's database sockets."""
    engine_for(str(connected_settings().database_url)).dispose(close=False)


def reply_worker() -> ReplyWorker:
    """This process's reply worker. torch costs two seconds and 300 MB: only a process that answers people imports it."""
    from workers.reply.worker import resident_worker

    return resident_worker()


@worker_ready.connect
def _keep_models_in_memory(**_: Any) -> None:
    if "reply" in app.amqp.queues.consume_from:
        reply_worker()


@worker_shutdown.connect
def _say_goodbye(**_: Any) -> None:
    if "reply" in app.amqp.queues.consume_from:
        reply_worker().stop()
