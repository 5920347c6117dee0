"""Feedback as lines of text, in and out, and who is in which split. No torch here."""
