"""Sockets: peer connections and an HTTP/1.1 server."""
