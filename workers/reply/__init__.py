"""The reply worker: keeps deployed snapshots in memory and writes the replies of all waiting turns together.

answer.py    one turn: claim its candidates, have them written, store them
worker.py    what one process keeps: writer, backends, heartbeat, models to preload
local.py     the thread that owns the engines; loading.py puts a snapshot's weights into one
endpoint.py  replies from an OpenAI-compatible server
stream.py    text into the Redis stream that the page follows; spelling.py makes it from tokens
rows.py      the SQL: claim, settle, heartbeat
"""
