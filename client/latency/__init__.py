"""The latency harness: from a sound at the microphone to the matching lips on the receiver's screen, by content."""
