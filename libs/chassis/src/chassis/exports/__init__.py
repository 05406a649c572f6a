"""Exports: a CSV file of what a list finds, masked as its page is, asked for, approved, made, given to who asked, and expired."""

from chassis.exports.approving import ReleaseExport, propose_export, releases
from chassis.exports.deciding import (
    EXPORTS,
    ExportNeedsApproval,
    ExportNotMade,
    ExportNotPermitted,
    ExportOutgrown,
    ExportOversized,
    ExportRightsChanged,
    ExportUnknown,
    TooManyExports,
)
from chassis.exports.declaring import Column, Exportable, Rights, columns_of, plain
from chassis.exports.following import making
from chassis.exports.running import Asked, Exports, ExportShown

__all__ = [
    "EXPORTS",
    "Asked",
    "Column",
    "ExportNeedsApproval",
    "ExportNotMade",
    "ExportNotPermitted",
    "ExportOutgrown",
    "ExportOversized",
    "ExportRightsChanged",
    "ExportShown",
    "ExportUnknown",
    "Exportable",
    "Exports",
    "ReleaseExport",
    "Rights",
    "TooManyExports",
    "columns_of",
    "making",
    "plain",
    "propose_export",
    "releases",
]
