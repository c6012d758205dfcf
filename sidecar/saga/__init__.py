"""The pure core: what may happen next in a saga, decided without I/O, clock or chance.

Everything here is data and functions over data. Time enters as an argument, chance enters as
a number on an event, and nothing is awaited, so the engine, the leader's duties, operators,
the simulator and the definition checker all go through the same code.

- `states`: the statuses and the literal transition table
- `definition`: the graph of steps that a workflow runs
- `policy`: retry arithmetic
- `outcomes`: what a call came to
- `events`: what can happen to a workflow
- `workflow`: the state of one workflow and of its steps
- `changes`: what a transition writes
- `children`: workflows that steps start
- `seen`: what expressions see
- `machine`: `start` and `advance`, the only ways to get from one state to the next
- `draft`: a transition while it is being made
- `answers`, `forward`, `rollback`: what an answer means, the way on, the way back
- `queueing`, `waits`, `fan_out`, `undoing`: what is done to steps of each kind on these ways
- `operators`: what a person may do
- `partial`: how much of a workflow a transition needs to see
- `invariants`: what must hold in every stored state
- `explain`: what a workflow waits for, in words
"""
