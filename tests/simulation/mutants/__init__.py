"""Bugs planted on purpose: tests that do not find them prove nothing.

    planting            how a bug is put into a function or a statement, and taken out again
    core, engine,       the bugs, by where they are
    memory, postgres
    language,           the bugs in what the language has beyond calls, in the core and the twin,
    language_postgres   and in the store on PostgreSQL
    actions, turns,     the bugs in catalogues, in how steps take turns, in rate limits, and in
    rates, reruns       how terminated workflows are run again
    corners             the bugs where these meet
    catalogue           all of them
    page                docs/mutants.md
    hunting             who finds them: the simulation, or tests in a process of their own
    plugin              plants a bug in that process

`python -m tests.simulation.mutants` hunts all of them, or those whose names hold the words given
to it, and prints what found each.
"""
