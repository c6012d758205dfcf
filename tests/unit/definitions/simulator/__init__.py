"""The simulator: what it makes of faults, and that it always makes the same of them."""
