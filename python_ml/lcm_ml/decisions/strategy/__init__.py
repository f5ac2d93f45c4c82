"""What recorded actions brought beside who was held back, and what follows for rules and offers."""
