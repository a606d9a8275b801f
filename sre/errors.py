"""Exceptions whose text a user may read: what was given, what is allowed, what to do."""


class SREError(Exception):
    """Something that a user can cause and cure; its text is shown as it is."""


class DataError(SREError):
    """A data file is missing, damaged, or cannot be fetched."""


class ImageError(SREError):
    """A picture cannot be read, or is not of a kind that a network takes."""


class CheckpointError(SREError):
    """A checkpoint is missing, damaged, or does not fit."""


class UnknownNameError(SREError):
    """A data set, model, protocol or stage has no such name."""


class SettingError(SREError):
    """A setting is outside what is allowed."""


class TrainingError(SREError):
    """A training run cannot go on."""


class Dropped(SREError):
    """Nobody waits for this answer any more."""
