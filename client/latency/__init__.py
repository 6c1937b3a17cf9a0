"""The latency harness: from a sound at the microphone to the lips on the receiver's screen, by content.

`probe` makes the sounds, a receiver (`receiver`: aiortc, `browser`: Chromium) sends them and times what comes back,
`sounds` and `lips` find the answers in it, `measurement` turns both into figures, `report`, `page` and `comparison`
show them. `self_test` proves all of it against `reference_server`, which answers with delays that are known.
"""
