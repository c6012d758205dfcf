"""What the store in memory is made of: its tables, and what can be asked of them."""
