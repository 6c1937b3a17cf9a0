"""Studies: how the motion changes with one thing, drawn as a curve. `talkalong evaluate --study NAME`."""
