"""What to do about users and the shop: campaigns, experiments, uplift, forecasts. Frames to frames."""
