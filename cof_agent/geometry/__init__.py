"""Every conversion between what a model writes and pixels of the source image happens here, once.

Three frames are told apart by name:
- *source*: pixels of the image as opened (EXIF applied), continuous, origin at the top left corner;
- *shown*: pixels of a view as the model's vision tower receives it;
- *model*: the numbers the model writes, in its order, which a `CoordinateSystem` ties to *shown*.
"""

from cof_agent.geometry.boxes import BoxError, around, clip_to_view, crop_region, grid_size, read_box, smart_resize
from cof_agent.geometry.crop import OUR_RULE, CropRule, cut, shown_size, sized
from cof_agent.geometry.frames import OF_MODELS, Box, CoordinateSystem, PixelLimits, Size, View, moved

__all__ = [
    "OF_MODELS",
    "OUR_RULE",
    "Box",
    "BoxError",
    "CoordinateSystem",
    "CropRule",
    "PixelLimits",
    "Size",
    "View",
    "around",
    "clip_to_view",
    "crop_region",
    "cut",
    "grid_size",
    "moved",
    "read_box",
    "shown_size",
    "sized",
    "smart_resize",
]
