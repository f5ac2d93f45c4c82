"""The next best action: a marketer's rules, what they decide for each user, and the lists to send."""
