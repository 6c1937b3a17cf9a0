"""The drawing room: motion in, pictures of one portrait out, with NumPy and OpenCV only.

Nothing here needs torch or another room of the project, so whoever encodes, records or shows a picture can draw it.
Start reading at `painter`; `prepared_portrait` is the file that a portrait becomes once, `drawing_model` what all
portraits share.
"""

from pipeline.drawing.drawing_model import DrawingModel
from pipeline.drawing.painter import Painter, Painters
from pipeline.drawing.prepared_portrait import PreparedPortrait, PreparedPortraitError

__all__ = ["DrawingModel", "Painter", "Painters", "PreparedPortrait", "PreparedPortraitError"]
