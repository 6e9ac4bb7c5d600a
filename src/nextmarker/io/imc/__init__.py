"""Imaging mass cytometry: .mcd files, .txt exports, and directories of steinbock."""
