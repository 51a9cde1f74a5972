"""Data for training: texts, vocabularies, streams, ragged rows, time series, minibatches."""

from fastrnn.data.examples import Examples, minibatches
from fastrnn.data.stream import Stream
from fastrnn.data.text import read_text
from fastrnn.data.types import Ids, Rows
from fastrnn.data.vocabulary import Vocabulary, WordVocabulary

__all__ = [
    "Examples",
    "Ids",
    "Rows",
    "Stream",
    "Vocabulary",
    "WordVocabulary",
    "minibatches",
    "read_text",
]
