"""Real processes under real faults, and a checker that believes only the ledger and PostgreSQL.

    proxy            a TCP proxy that delays, throttles, cuts, swallows, holds, resets and refuses
    faults           what a service can be told to do wrong, how often, and to whom
    book             what a service has done: a file that only grows, written before each answer
    ledger           the services themselves, all in one process of their own
    calling_back     what a service does that has answered 202
    graphs           what a definition demands, read from its document
    patience         how often, how soon and for how long it lets things be tried and waited for
    rows             what PostgreSQL says when all is at rest
    expectations     what a run may come to, and what it must have shown
    checker          the invariants, with `effects` (by the ledger), `history` (by the events),
                     `reference` (a model that replays them), `timing` (of tries and deadlines),
                     `families` (of trees), `turns` and `rates`; a run in which too little
                     happened is invalid, not green
    definitions      the workflows that are run, and what their services will say
    language         the workflows that use all that the language has, and who talks to them
    helping          what people do for workflows that wait for them
    asking           the client that starts and cancels them, and forgets nothing
    sidecars         sidecar processes that can be killed, stopped and brought back
    looking          what PostgreSQL says of a run in its middle
    watching         the orchestrator: who has died, who leads
    sessions         the sessions that sidecars have in PostgreSQL, found and ended
    topics           the doorbells' topics: read, rung by a test itself, played again, deleted
    meters           what sidecars count of themselves, so that a run can demand it
    world            all of it put together
    report           what is said of a run that went wrong

A test opens a `World`, loads it, does harm, waits for rest and lets it be verified:

    with World(seed=7, supervise=True) as world:
        load = world.begin_load(200, MIX)
        world.kill9("payments-1")
        load.result()
        world.quiesce(within_s=30)
        world.verify(Expectations(at_least={"completed": 80, "rolled_back": 20, "kills": 1}))
"""
