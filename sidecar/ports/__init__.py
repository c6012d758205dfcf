"""The ports: what the engine asks of the world, as protocols and the values they speak.

- `store`: the truth (PostgreSQL, or memory)
- `queue`: doorbells between sidecars
- `notices`: hints that something was committed
- `service`: the microservice beside this sidecar
- `election`: who does the leader's duties
- `clock`, `entropy`: time and chance
- `telemetry`: metrics and named facts
"""
