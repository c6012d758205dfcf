"""HTTP/1.1 on the wire, against a server of bytes."""
