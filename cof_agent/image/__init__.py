"""Images of any size and kind: one `Source` for each file, whose regions are read at full resolution when they are asked for.

Every file becomes 8-bit RGB by stated rules: EXIF orientation applied, first frame of an animation, transparency
over white, deep greyscale (16-bit, 32-bit, float) scaled to 8 bits. Colour profiles are not applied.
"""

from cof_agent.image.colours import png_of
from cof_agent.image.pages import is_pdf, pages_of
from cof_agent.image.reader import RESAMPLING
from cof_agent.image.slides import SUFFIXES as SLIDES
from cof_agent.image.source import (
    DEFAULT_MAX_SOURCE_PIXELS,
    LARGEST_HEADER,
    Source,
    check_whole,
    file_of,
    open_source,
    upright_size,
)

__all__ = [
    "DEFAULT_MAX_SOURCE_PIXELS",
    "LARGEST_HEADER",
    "RESAMPLING",
    "SLIDES",
    "Source",
    "check_whole",
    "file_of",
    "is_pdf",
    "open_source",
    "pages_of",
    "png_of",
    "upright_size",
]
