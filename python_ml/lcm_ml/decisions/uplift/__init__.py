"""Who buys because of a campaign: effects of touches per user, checked against what chance would show."""
