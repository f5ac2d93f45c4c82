"""What `make bench` measures: one module for each kind of work, each with a function `measure(shop, rounds)`."""
