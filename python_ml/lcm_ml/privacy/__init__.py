"""The right to be forgotten and the right to know: users removed everywhere, or handed all that is held of them."""
