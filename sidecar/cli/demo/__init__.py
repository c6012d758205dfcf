"""`goconductor demo`: three services, three sidecars and a real PostgreSQL, on this machine alone.

- `orders`: the batch, and which trouble each order meets
- `service`, `ledger`: the three services, and the books they keep
- `child`, `children`: programs that cannot outlive the demo
- `stage`: everything that runs, built up and taken down
- `sidecars`: what is asked of the sidecars over REST
- `audit`: whether the books agree with what the workflows say
- `show`: what a person sees meanwhile and at the end
- `run`: one demo, from start to end
"""
