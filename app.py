"""Entry point of the page, on a laptop and on a Hugging Face Space: ``python app.py --help``."""

if __name__ == "__main__":
    import sys

    from app.__main__ import main

    sys.exit(main())
