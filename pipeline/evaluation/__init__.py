"""Measures a model on held-out portraits and speech: `python -m pipeline.evaluation`, see `command`.

Everything is judged on the rendered frames: MediaPipe FaceMesh looks at lips, lids, head, dlib at identity.
The measures themselves are pure functions of arrays.
"""
