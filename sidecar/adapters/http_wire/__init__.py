"""HTTP/1.1 as the sidecar speaks it to its service: one request, one bounded answer, no more.

A general client spends most of a call on what is never wanted here: cookies, redirects,
proxies, and objects for each of them. Parsing is `httptools` (llhttp, as Node uses it).
"""
