"""What the server tells its users: one line each."""


class SimError(Exception):
    """A mistake a user can mend; its text is the one line they see, on the terminal or as the client's exception."""


class NotOffered(SimError):
    """Something of CARLA's that this server leaves out, said by name."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what} is not offered by this server: {why}")


class PortTaken(SimError):
    """Somebody else listens where we wanted to."""
