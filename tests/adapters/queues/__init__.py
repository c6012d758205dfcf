"""The queues held to their contract, each on its real backend."""
