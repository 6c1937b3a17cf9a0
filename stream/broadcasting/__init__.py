"""One speaker, many who watch: WHIP in, WHEP out, the viewer page."""
