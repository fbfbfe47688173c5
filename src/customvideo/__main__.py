"""`python -m customvideo`, for where the command is not on the path."""

from customvideo.cli import main

if __name__ == "__main__":
    main()
