"""The `goconductor` command.

- `main`: the group of all commands, and what the exit codes mean
- `workflows`: start, list, show, events, cancel
- `definitions`: apply
- `check`, `simulate`: what a definition comes to, without any sidecar
- `operation`: demo, sidecar, migrate, version
- `client`: asking a sidecar over REST, with a deadline
- `tables`: what people read
- `options`: what several commands take

Modules import what is heavy only when a command needs it, so that `--help` is quick.
"""
