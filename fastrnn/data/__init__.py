"""Data for training: texts, vocabularies, streams, ragged rows, time series, minibatches."""

from fastrnn.data.buckets import bucketed_minibatches
from fastrnn.data.examples import Examples, minibatches
from fastrnn.data.pairs import Pairs
from fastrnn.data.ragged import Ragged
from fastrnn.data.series import split_in_time, windows
from fastrnn.data.stream import Stream
from fastrnn.data.text import read_text
from fastrnn.data.types import Ids, Rows
from fastrnn.data.vocabulary import Vocabulary, WordVocabulary

__all__ = [
    "Examples",
    "Ids",
    "Pairs",
    "Ragged",
    "Rows",
    "Stream",
    "Vocabulary",
    "WordVocabulary",
    "bucketed_minibatches",
    "minibatches",
    "read_text",
    "split_in_time",
    "windows",
]
