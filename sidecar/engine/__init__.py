"""The engine: what one sidecar does, spoken only in terms of ports.

    receiving ──▶ group_commit (claim) ──▶ calling ──▶ group_commit (settle) ──▶ ringing
                        ▲                                                          │
                        └────────────── local retry timers ◀───────────────────────┘

- `group_commit`, `commit_line`: starts, claims and settlements share transactions
- `receiving`: from doorbells, or looks into the store, to claims
- `calling`: from a claim to an answer, and its settlement
- `ringing`: doorbells, notices and local timers after a commit
- `gate`: whether the service may be called at all
- `heartbeat`, `leadership`, `duties`, `backing_off`: being seen, and healing
- `commands`, `queries`, `views`, `waiting`: what the faces offer
- `intake`: what comes in from outside, checked; `compiled`: definitions ready to run
- `supervision`: long tasks, which begin anew whatever ends them
- `agent`: all of it as one thing that starts, drains and stops
"""
