"""The real-time server: WebRTC and WebSocket sessions around the talking-portrait model.

Importing this package is cheap; `stream.protocol` is shared with the client and imports neither torch nor
a web framework.
"""
