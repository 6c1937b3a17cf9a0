"""Measures a model on held-out portraits and speech: `python -m pipeline.evaluation`, see `command`.

Everything is judged on the rendered frames, by trackers that the model never saw in training form (MediaPipe FaceMesh
for lips, lids and head, dlib for identity). The measures themselves are pure functions of arrays.
"""
