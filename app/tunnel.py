"""What ``python app.py --share`` says of its public link. Knows nothing of how one is made."""


def share_note(local: str, public: str | None) -> str:
    """One sentence for whoever started the page, from the two addresses that launching gave."""
    if public:
        return f"* Anyone can reach this page at {public} while this program runs."
    return (
        f"* There is no public link, for the reason above, but the page runs at {local}: check "
        "this machine's way to the internet and start again, open the page to your own network "
        "with --host 0.0.0.0, or host it as the README says."
    )
