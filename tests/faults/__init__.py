"""What GoConductor survives, fault by fault: the catalogue, and the page that is made from it.

A test that proves a row of the catalogue carries its number: `@pytest.mark.fault(28)`. `make
faults` runs all of them and writes `docs/faults.md`: row, mechanism, tests, how they went last.
"""
