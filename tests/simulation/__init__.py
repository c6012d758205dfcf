"""Seeded simulation: the real engine in virtual time, in a world that fails on purpose.

One seed decides everything: the workflows, the faults, the order in which whatever is ready
runs. `SEED=n .venv/bin/python -m tests.simulation` replays a seed with its story.

- `loop`: virtual time, one thread, an order drawn from the seed, deadlocks detected
- `faults`: which faults a seed knows, and how often they strike
- `workload`: random definitions, and what the services will say
- `node`: one place for a sidecar
- `sides`: the ports of one sidecar, with the faults between it and the world
- `breaking`: the one who breaks things
- `world`: sidecars, services and clients, in two phases
- `checkers`, `verdict`: what must hold after every commit and call, and at the end
- `listening`: what the engine logs
- `mutants`: bugs planted on purpose, each of which must be found
"""
