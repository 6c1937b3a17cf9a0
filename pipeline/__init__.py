"""The talking-portrait model: audio windows in, video frames out.

Importing this package is cheap: nothing here imports torch. `pipeline.windowing` and `pipeline.state`
stay free of torch as well, so that the server's event loop can use them.
"""
