"""Celery workers: replies, rounds, imports and exports. The only place that knows both rows and tensors."""
