"""The HTTP contract without I/O: what is sent to a service, and what its answers mean.

- `requests`: where a call goes and with which headers
- `bodies`: reading a body within its bounds
- `answers`: the outcome table

`docs/contract.md` says the same to people who write a service.
"""
