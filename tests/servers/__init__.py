"""Real servers for tests: private, on loopback, in a temporary folder, gone when the tests are.

`install` fetches what is missing. `processes` starts a program so that it cannot outlive us;
`postgres` and `kafka` know one server each.
"""
