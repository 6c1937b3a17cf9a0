"""Clients of a Talkalong server: the web page, the command line, and a Python class over WebRTC or WebSocket.

Nothing here imports torch or the model; only `stream.protocol` is shared with the server.
"""
