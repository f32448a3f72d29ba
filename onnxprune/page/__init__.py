"""The record of a run as one HTML page that needs nothing else.

``document`` puts the page together; each section has a module that says what it shows, and a
template of the same name in ``template/`` that says how. Charts are inline SVG.
"""

from __future__ import annotations

from onnxprune.page.document import page, write_page

__all__ = ["page", "write_page"]
