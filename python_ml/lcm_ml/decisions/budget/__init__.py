"""Whom to contact, through which channel and with what offer, under a budget."""
