"""Imaging mass cytometry: .mcd files, .txt exports, and steinbock directories."""
