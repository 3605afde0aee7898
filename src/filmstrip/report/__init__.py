"""Reports: self-contained HTML pages with figures, curves, tables and moving pictures."""

from filmstrip.report.clips import CaptionedClip, ClipGallery, Strip, Strips
from filmstrip.report.confusion import ConfusionMatrix
from filmstrip.report.curves import Curves
from filmstrip.report.page import Group, Report, Section
from filmstrip.report.sections import Column, Facts, Table, Text

__all__ = [
    "CaptionedClip",
    "ClipGallery",
    "Column",
    "ConfusionMatrix",
    "Curves",
    "Facts",
    "Group",
    "Report",
    "Section",
    "Strip",
    "Strips",
    "Table",
    "Text",
]
