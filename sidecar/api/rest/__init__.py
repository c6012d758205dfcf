"""The REST face: HTTP and JSON over `sidecar.engine.commands` and `sidecar.engine.queries`.

- `routes`: the literal table of all operations; routing and OpenAPI are made from it
- `models`: what requests and answers look like
- `workflows`, `definitions`, `events`: the handlers
- `reading`: what handlers read from a request
- `encoding`: views as JSON
- `hosts`: by which names it may be asked
- `problems`: why an answer is an error
- `openapi`: the document that describes all of it
- `app`: the application
- `server`: its listener, and what it bears from slow clients
"""
