"""The longest text that any route reads.

Above any campaign's limit, so that the campaign's own, which is named in the error, is the one people meet.
"""

LONGEST_TEXT = 500_000
