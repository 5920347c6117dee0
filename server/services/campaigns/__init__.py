"""Campaigns as their admins make and change them."""
