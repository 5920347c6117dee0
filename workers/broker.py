"""What a worker that is in the middle of a task does when Redis goes away: it waits, and takes new work when Redis is back.

kombu 5.7 uses the lost connection twice more, to hand back what is not acknowledged and to acknowledge it in the end, and breaks
on both. Celery then takes nothing new until the task ends, which for training is hours later, or ends the worker.
"""

from __future__ import annotations

from kombu.transport.redis import Channel, QoS


class PatientQoS(QoS):  # type: ignore[misc]  # kombu is not typed
    """Forgets messages whose connection is gone: Redis hands them out again, and they find their rows claimed or done."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge one message, if that is still possible."""
        if self.channel.connection is not None:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Refuse one message, if that is still possible."""
        if self.channel.connection is not None:
            super().reject(delivery_tag, requeue=requeue)


def outlive_lost_connections() -> None:
    """Change kombu's Redis channels of this process; before the first connection."""
    Channel.QoS = PatientQoS
    Channel.do_restore = False  # at the end of a connection; the sweep asks again for what nobody works on
