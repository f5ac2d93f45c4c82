"""Memory that this process no longer uses."""


def give_back() -> None:
    """Return what was freed to the machine, so that what comes next does not count on top of it.

    glibc keeps freed pieces for later ones, gigabytes after the frames of a large shop. Elsewhere this does nothing.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
