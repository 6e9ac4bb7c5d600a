"""TIFF files of instruments and programs, and folders of them."""
