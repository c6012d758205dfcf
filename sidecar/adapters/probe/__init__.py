"""The probe: the HTTP contract's cases, asked of a live service.

- `record`: what a case can do, and what is kept of it
- `bodies`: what is sent
- `judging`: what the answers to an execute are worth
- `judging_undo`: what those around a compensation are worth
- `cases`: the table of all cases
- `wire`: one request, or half of one
- `running`: the cases, one after the other, against one service

All but the last two are pure: a verdict is a function of what was recorded.
"""
