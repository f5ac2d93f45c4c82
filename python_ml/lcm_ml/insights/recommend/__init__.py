"""What to recommend to each user: candidate models, a ranker over them, filters, reasons and figures out of time."""
