"""The page's own style: what NiceGUI's classes do not say. Text keeps a contrast of 4.5 to 1, light and dark."""

STYLE = """
body { --q-primary: #1258b0 !important; --cof-on-primary: #ffffff; }
body.body--dark { --q-primary: #86b9ff !important; --cof-on-primary: #10131a; }
.text-on-primary { color: var(--cof-on-primary); }
.nicegui-content { max-width: 110rem; margin: 0 auto; padding: 0.75rem; gap: 0.75rem; }
.cof-columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; width: 100%; align-items: start; }
.cof-upload { min-height: 0; }
.cof-upload .q-uploader__list, .cof-upload .q-uploader__subtitle { display: none; }
.cof-map.leaflet-container { width: 100%; height: 46vh; min-height: 15rem; border-radius: 0.5rem; z-index: 0; }
.cof-map.leaflet-container { background: #e7e8eb; }
.body--dark .cof-map.leaflet-container { background: #24262b; }
.cof-map:focus-visible { outline: 3px solid #1677ff; outline-offset: 2px; }
.cof-map .leaflet-draw-section:not(:first-child) { display: none; }
/* Tiles overlap by a pixel: at zooms between two levels there would be seams. */
.cof-map img.leaflet-tile { width: 257px !important; height: 257px !important; mix-blend-mode: normal !important; }
.cof-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.cof-quiet { color: #5b5f66; }
.body--dark .cof-quiet { color: #b4b8c0; }
.cof-crop { height: auto; max-height: 11rem; max-width: 100%; width: auto; border-radius: 0.25rem; }
.cof-step { border-left: 4px solid #8a8f98; padding: 0.25rem 0 0.25rem 0.75rem; width: 100%; }
.cof-answer { border-left: 4px solid #00855a; padding: 0.5rem 0.75rem; width: 100%; font-size: 1.125rem; font-weight: 600; }
.leaflet-tooltip.cof-tag { padding: 0 0.3rem; font-weight: 700; color: #17181a; background: #ffffff; border-color: #17181a; }
.leaflet-tooltip.cof-tag::before { display: none; }
.cof-panel > * { flex-shrink: 0; }
@media (min-width: 64rem) {
  .cof-columns { grid-template-columns: minmax(0, 3fr) minmax(22rem, 2fr); }
  .cof-images, .cof-panel { height: calc(100vh - 5.5rem); flex-wrap: nowrap; }
  .cof-images > .cof-map.leaflet-container { flex: 1 1 0; min-height: 15rem; }
  .cof-panel > .cof-steps { flex: 0 1 auto; min-height: 0; overflow-y: auto; flex-wrap: nowrap; }
  .cof-steps > * { flex-shrink: 0; }
}
"""
