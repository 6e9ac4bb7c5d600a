"""TIFFs: files of the instruments, and folders of one file per channel."""
