"""The image in a deep-zoom viewer (Leaflet, which comes with NiceGUI), with numbered boxes, and drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from cof_agent.geometry import Box
from cof_agent.server.tiles import SIDE, Shown
from cof_agent.viewer.picture import PALETTE

_CLOSER = 4  # levels beyond the pixels of the file: one of them is then 16 x 16 on the screen
_OFF = dict.fromkeys(("polyline", "polygon", "circle", "marker", "circlemarker"), False)
_DRAW = {"draw": {**_OFF, "rectangle": {"showArea": False}}, "edit": {"edit": False, "remove": False}}
_OPTIONS = {"minZoom": 0, "maxZoom": 20, "zoomSnap": 0.25, "attributionControl": False, "maxBoundsViscosity": 0.8}

Corners = list[list[float]]


class Viewer:
    """One image at a time. on_drawn: called with each box (source pixels) that the reader draws."""

    def __init__(self, on_drawn: Callable[[Box], None]) -> None:
        self._shown: Shown | None = None
        self._on_drawn = on_drawn
        self._zooms: list[Any] = []  # layers of Leaflet
        self._regions: list[Any] = []
        self._map = ui.leaflet(
            center=(0, 0), zoom=0, options=_OPTIONS, draw_control=_DRAW, hide_drawn_items=True
        ).classes("cof-map")
        self._map.clear_layers()  # the map of the world that it begins with
        self._map.on("draw:created", self._drawn, args=["layer"])
        self._map.props('aria-label="the image; arrow keys move it, plus and minus zoom" role="application"')

    async def show(self, shown: Shown) -> None:
        """Shows another image, whole, without boxes."""
        await self._map.initialized()
        self.clear()
        self._map.clear_layers()
        self._shown = shown
        # The plane of the image in place of the globe; there is no option for it that could be written as JSON.
        ui.run_javascript(f"getElement({self._map.id}).map.options.crs = L.CRS.Simple")
        whole = self._corners(Box(0, 0, shown.size.width, shown.size.height))
        self._map.tile_layer(
            url_template=f"/tiles/{shown.id}/{{z}}/{{x}}/{{y}}",
            options={
                "tileSize": SIDE,
                "minZoom": 0,
                "maxNativeZoom": shown.last,
                "maxZoom": shown.last + _CLOSER,
                "bounds": whole,
                "noWrap": True,
            },
        )
        self._map.run_map_method("invalidateSize", {"animate": False})  # the row of images above it came or went
        self._map.run_map_method("setMaxZoom", shown.last + _CLOSER)
        self._map.run_map_method("fitBounds", whole, {"animate": False})

    def box(self, region: Box, label: str, number: int = 0) -> None:
        """Draws a box (source pixels). number: of the zoom, which has its colour; 0: one that the question names."""
        style = {"color": PALETTE[(number - 1) % len(PALETTE)], "weight": 3, "fill": False, "interactive": False}
        dashed = {} if number else {"color": "#ffffff", "dashArray": "6 6"}
        corners, layers = self._corners(region), self._zooms if number else self._regions
        layers.append(self._map.generic_layer(name="rectangle", args=[corners, style | dashed]))
        corner = [corners[0][0], corners[1][1]]
        dot = self._map.generic_layer(name="circleMarker", args=[corner, {"radius": 0, "stroke": False}])
        tag = {"permanent": True, "direction": "right", "className": "cof-tag", "opacity": 1, "offset": [0, 0]}
        dot.run_method("bindTooltip", label, tag)
        layers.append(dot)

    def look_at(self, region: Box) -> None:
        """Moves to a region (source pixels), with some room about it."""
        self._map.run_map_method("fitBounds", self._corners(region.scaled(2)), {"animate": True})

    def clear(self) -> None:
        """Removes all boxes."""
        self._remove(self._zooms)
        self.clear_regions()

    def clear_regions(self) -> None:
        """Removes the boxes that the question names."""
        self._remove(self._regions)

    def _remove(self, layers: list[Any]) -> None:
        for layer in layers:
            self._map.remove_layer(layer)
        layers.clear()

    def _corners(self, box: Box) -> Corners:
        """A box (source pixels) on the plane, whose unit is a pixel of level 0, and which Leaflet counts upwards."""
        assert self._shown is not None
        unit = 1 << self._shown.last
        return [[-box.y0 / unit, box.x0 / unit], [-box.y1 / unit, box.x1 / unit]]

    def _drawn(self, event: GenericEventArguments) -> None:
        if self._shown is None:
            return
        points = list(_points(event.args.get("layer", {}).get("_latlngs")))
        unit = 1 << self._shown.last
        xs, ys = [lng * unit for _, lng in points], [-lat * unit for lat, _ in points]
        if not points:
            return
        box = Box(*map(round, (min(xs), min(ys), max(xs), max(ys)))).clipped(self._shown.size)
        if box.area:
            self._on_drawn(box)


def _points(value: Any) -> Iterable[tuple[float, float]]:
    """The points in the rings that Leaflet sends of a shape."""
    if isinstance(value, dict) and "lat" in value:
        yield float(value["lat"]), float(value["lng"])
    elif isinstance(value, list):
        for one in value:
            yield from _points(one)
